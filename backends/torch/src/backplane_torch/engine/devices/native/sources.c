/* Of which sources the library was made: `library.py` takes no other. */

#include <stdint.h>

#ifndef SOURCES
#define SOURCES 0 /* compiled by hand */
#endif

uint32_t bp_sources(void) {
    return SOURCES;
}
