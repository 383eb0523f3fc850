//! How the targets read what the fuzzer gives them: mostly as lines of text, so that seeds can be read and written by
//! people.

use poem::http::{HeaderMap, HeaderName, HeaderValue};

/// All lines, without their ends.
pub fn lines(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    data.split(|byte| *byte == b'\n')
}

/// The first line as a text, and the others.
pub fn head(data: &[u8]) -> Option<(&str, &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    Some((std::str::from_utf8(&data[..end]).ok()?, &data[end + 1..]))
}

/// The lines as the values of one header, as far as a server lets them in.
pub fn values(data: &[u8]) -> Vec<HeaderValue> {
    lines(data).filter_map(|line| HeaderValue::from_bytes(line).ok()).collect()
}

/// Headers of one name.
pub fn headers(name: &HeaderName, values: &[HeaderValue]) -> HeaderMap {
    values.iter().map(|value| (name.clone(), value.clone())).collect()
}
