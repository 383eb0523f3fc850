//! The program that `openapi/README.md` shows.

include!(concat!(env!("OUT_DIR"), "/readme.rs"));
