"""The APIs' JSON, one module each: request structs in, `GenerationRequest` and answers out."""
