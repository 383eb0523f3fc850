//! A text: each kind of name keeps what it takes, takes what its rule says in other words, and the client agrees.

#![no_main]

use std::fmt::Debug;

use imgsrv_client::types;
use imgsrv_core::fuzzing::{probe_time, upload_of};
use imgsrv_core::model::{
    Actor, AliasName, Architecture, AttachmentName, BlobState, Digest, Etag, FileName, Format, ImageName, JobState,
    MediaType, NameInDirectory, OperatingSystem, Prose, Reference, StepState, Subject, Text, UploadState, Variant,
    VersionName, VersionState,
};
use libfuzzer_sys::fuzz_target;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// A `T` if the text is `expected` to be one, and the same text again.
fn check<T: Text + PartialEq + Serialize + DeserializeOwned>(text: &str, expected: bool) -> Option<T> {
    let parsed = text.parse::<T>().ok();
    assert_eq!(parsed.is_some(), expected, "{}: {text:?}", T::NAME);
    let json = serde_json::from_value::<T>(text.into()).ok();
    assert!(parsed == json, "{}: {text:?}", T::NAME);
    let value = parsed?;
    assert_eq!(value.as_ref(), text);
    assert_eq!(value.to_string(), text);
    assert_eq!(serde_json::to_value(&value).expect("JSON"), Value::from(text));
    Some(value)
}

/// The same, of which the generated client has its own.
fn check_both<T, C>(text: &str, expected: bool) -> Option<T>
where
    T: Text + PartialEq + Serialize + DeserializeOwned,
    C: std::str::FromStr<Err: Debug> + Serialize,
{
    // Its regular expressions go back and forth, which takes time in long texts.
    if text.len() <= 600 {
        let client = text.parse::<C>();
        assert_eq!(client.is_ok(), expected, "{} of the client: {text:?}", T::NAME);
        if let Ok(value) = client {
            assert_eq!(serde_json::to_value(value).expect("JSON"), Value::from(text));
        }
    }
    check(text, expected)
}

/// A first letter or digit, then so many of these as well.
fn is_name(text: &str, others: &str, longest: usize) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || others.contains(c);
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(is_part) && text.len() <= longest
}

fn is_control(c: char) -> bool {
    c < ' ' || c == '\u{7f}'
}

/// In both dialects of regular expressions.
fn is_space(c: char) -> bool {
    c.is_whitespace() || c == '\u{feff}'
}

fn is_file_name(text: &str) -> bool {
    let count = text.chars().count();
    (1..=255).contains(&count)
        && !matches!(text, "." | "..")
        && !text.ends_with(is_space)
        && !text.contains(|c| is_control(c) || c == '/' || c == '\\')
}

fn is_prose(text: &str) -> bool {
    text.chars().count() <= 8000
        && text.contains(|c| !is_space(c) && !is_control(c))
        && text.chars().all(|c| !is_control(c) || matches!(c, '\n' | '\r' | '\t'))
}

fn is_media_type(text: &str) -> bool {
    let restricted = |text: &str, longest| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "!#$&^_.+-".contains(c);
        (1..=longest).contains(&text.len()) && text.chars().all(fits)
    };
    let Some((main, mut rest)) = text.split_once('/') else { return false };
    let end = rest.find([' ', ';']).unwrap_or(rest.len());
    if !restricted(main, 127) || !restricted(&rest[..end], 127) {
        return false;
    }
    rest = &rest[end..];
    for _ in 0..8 {
        let Some(parameter) = rest.strip_prefix(' ').unwrap_or(rest).strip_prefix(';') else { break };
        let Some((name, value)) = parameter.strip_prefix(' ').unwrap_or(parameter).split_once('=') else {
            return false;
        };
        let end = if let Some(quoted) = value.strip_prefix('"') {
            let Some(end) = quoted.find('"') else { return false };
            if end > 127 || !quoted[..end].chars().all(|c| matches!(c, ' '..='~') && c != '\\') {
                return false;
            }
            end + 2
        } else {
            let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+.^_`|~-".contains(c);
            let end = value.find(|c| !is_token(c)).unwrap_or(value.len());
            if !(1..=127).contains(&end) {
                return false;
            }
            end
        };
        if !restricted(name, 64) {
            return false;
        }
        rest = &value[end..];
    }
    rest.is_empty()
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_etag(text: &str) -> bool {
    text.split_once('-').is_some_and(|(crc, size)| {
        is_hex(crc, 16) && (1..=19).contains(&size.len()) && size.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn check_word<T: Text + PartialEq + Serialize + DeserializeOwned>(text: &str) {
    check::<T>(text, T::WORDS.contains(&text));
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
    check_both::<ImageName, types::ImageName>(text, lower && is_name(text, "._-", 128));
    check_both::<VersionName, types::VersionName>(text, is_name(text, "._+:-", 128));
    check_both::<Reference, types::Reference>(text, is_name(text, "._+:-", 128));
    check_both::<AliasName, types::AliasName>(text, is_name(text, "._-", 64));
    check_both::<Variant, types::Variant>(text, is_name(text, "._+-", 64));
    check_both::<OperatingSystem, types::OperatingSystem>(text, is_name(text, "._+-", 64));
    check_both::<Architecture, types::Architecture>(text, is_name(text, "._+-", 64));
    check_both::<AttachmentName, types::AttachmentName>(text, is_name(text, "._+-", 64));
    check_both::<NameInDirectory, types::NameInDirectory>(text, is_name(text, "._+:-", 700));
    check_both::<MediaType, types::MediaType>(text, is_media_type(text));
    check_both::<FileName, types::FileName>(text, is_file_name(text));
    check_both::<Prose, types::Prose>(text, is_prose(text));
    check_both::<Etag, types::Etag>(text, is_etag(text));
    check::<Actor>(text, is_name(text, "._:@/+-", 256));

    let digits = text.strip_prefix("sha256:");
    if let Some(digest) = check_both::<Digest, types::Digest>(text, digits.is_some_and(|digits| is_hex(digits, 64))) {
        assert_eq!(Some(digest.hex()), digits);
        assert_eq!(Digest::from_sha256(digest.bytes()), digest);
    }

    check_both::<Format, types::Format>(text, Format::WORDS.contains(&text));
    check_word::<UploadState>(text);
    check_word::<VersionState>(text);
    check_word::<BlobState>(text);
    check_word::<JobState>(text);
    check_word::<StepState>(text);
    check_word::<Subject>(text);

    // The names of objects in a store, which others may write to as well.
    assert!(upload_of(text).is_none() || text.starts_with("blobs/sha256/"), "{text:?}");
    assert!(probe_time(text).is_none() || text.starts_with("probe/"), "{text:?}");
});
