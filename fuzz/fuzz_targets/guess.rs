//! The name of a file, then how many zeros it begins with, then what follows: what is guessed is what a server takes, and
//! does not hang on how a name is written.

#![no_main]

use imgsrv_cli::fuzzing::{architecture, format, media_type, media_type_of_attachment, operating_system};
use imgsrv_core::model::{Architecture, Format, MediaType, OperatingSystem};
use imgsrv_fuzz::head;
use libfuzzer_sys::{Corpus, fuzz_target};

fn check_media_type(media_type: &str) {
    assert!(media_type.parse::<MediaType>().is_ok(), "{media_type:?}");
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((name, rest)) = head(data) else { return Corpus::Reject };
    // A name alone, and not that of a hidden file, which has no extension.
    if name.contains('/') || name.starts_with('.') {
        return Corpus::Reject;
    }
    let Some((zeros, rest)) = head(rest) else { return Corpus::Reject };
    let Some(zeros) = zeros.parse().ok().filter(|zeros| *zeros <= 40_000) else { return Corpus::Reject };
    let mut file = vec![0; zeros];
    file.extend(rest);
    let begin = &file[..file.len().min(32_774)];

    let found = format(name, begin);
    let longer = format!("a-{name}");
    for other in [&name.to_ascii_uppercase(), &name.to_ascii_lowercase(), &longer] {
        assert_eq!(format(other, begin), found, "{other:?}");
    }
    // No more of it is read.
    assert_eq!(format(name, &file), found);
    check_media_type(media_type_of_attachment(name));
    if let Some(format) = found {
        let word = format.to_string();
        assert!(word.parse::<Format>().is_ok(), "{word}");
        check_media_type(media_type(format));
    }

    let between = format!("-{}.", name.to_ascii_uppercase());
    assert_eq!(architecture(name), architecture(&between));
    assert!(architecture(name).is_none_or(|word| word.parse::<Architecture>().is_ok()));
    for format in found.into_iter().chain(imgsrv_client::types::Format::try_from("raw")) {
        let system = operating_system(name, format);
        assert_eq!(system, operating_system(&between, format));
        assert!(system.is_none_or(|word| word.parse::<OperatingSystem>().is_ok()));
    }
    Corpus::Keep
});
