from backplane_launcher.bench.event_stream import EventSplitter
from hypothesis import given
from hypothesis import strategies as st

# What the format has a use for elsewhere, and characters of one to four bytes; no line ends.
DATA = st.text('a:{"} \t\x00é\u2028中😀', min_size=1, max_size=20).map(str.encode)
LINE_ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw):
    """A stream's bytes, the data in it, and where it is cut."""
    stream, expected = b"", []
    end = draw(LINE_ENDS)
    for _ in range(draw(st.integers(0, 6))):
        kind = draw(st.sampled_from(["data", "bare", "comment", "lines", "named"]))
        data = draw(DATA)
        if kind == "comment":
            stream += b":" + data + end + end
            continue
        if kind == "lines":
            more = draw(DATA)
            stream += b"data: " + data + end + b"data: " + more + end + end
            data += b"\n" + more
        elif kind == "named":
            stream += b"event: word" + end + b"data: " + data + end + end
        elif kind == "bare":
            data = data.lstrip(b" ") or b"x"
            stream += b"data:" + data + end + end
        else:
            stream += b"data: " + data + end + end
        expected.append(data)
    cuts = sorted(draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    return stream, expected, cuts


@given(streams())
def test_events_are_the_same_however_the_bytes_are_cut(case):
    stream, expected, cuts = case
    splitter = EventSplitter()
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True) if a != b]
    found = [data for piece in pieces for data in splitter.feed(piece)]
    # A lone carriage return at the very end may be half of a line's end: it is held back.
    found += splitter.feed(b"\n") if stream.endswith(b"\r") else []
    assert found == expected
    assert splitter.is_between_events


def test_what_has_no_end_is_no_event_yet():
    splitter = EventSplitter()
    assert splitter.feed(b'data: {"half') == []
    assert not splitter.is_between_events
    assert splitter.feed(b'": 1}\n\ndata: next\n\n') == [b'{"half": 1}', b"next"]
    assert splitter.is_between_events
