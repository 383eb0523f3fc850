//! What the fuzz targets call, and nobody else: it may change at any time.

use std::ffi::OsStr;
use std::path::PathBuf;

use imgsrv_client::types::{AttachmentName, Format, ImageName, Part, Reference};

use crate::guess;
use crate::layout::Layout;
use crate::push::Attach;
use crate::target::Target;

/// What a file of this name is that begins like this.
pub fn format(name: &str, head: &[u8]) -> Option<Format> {
    guess::format_of(name, head).ok()
}

/// The architecture that the name of a file has a word for.
pub fn architecture(name: &str) -> Option<&'static str> {
    guess::architecture(name)
}

/// The operating system that it has a word for, or that the format tells.
pub fn operating_system(name: &str, format: Format) -> Option<&'static str> {
    guess::operating_system(name, format)
}

/// What the bytes of an artifact are called.
pub fn media_type(format: Format) -> &'static str {
    guess::media_type(format)
}

/// What goes with an artifact, by the end of its name.
pub fn media_type_of_attachment(name: &str) -> &'static str {
    guess::media_type_of_attachment(name)
}

/// The number, offset and length of each part of a file, some of which are there already.
pub fn pieces(size: u64, wanted: u64, stored: &[Part]) -> Option<impl Iterator<Item = (u64, u64, u64)>> {
    let layout = Layout::of(size, wanted, stored)?;
    Some(layout.pieces().map(|piece| (piece.number, piece.offset, piece.len)))
}

/// `IMAGE[:REF]`, and how it is shown.
pub fn target(text: &str) -> Option<(ImageName, Reference, String)> {
    let target: Target = text.parse().ok()?;
    let shown = target.to_string();
    Some((target.image, target.reference, shown))
}

/// `NAME=FILE`.
pub fn attach(text: &OsStr) -> Option<(AttachmentName, PathBuf)> {
    Attach::parse(text).ok().map(|attach| (attach.name, attach.path))
}
