//! A cursor, or the lines behind which one stands: what it holds is what was put in.

#![no_main]

use chrono::Datelike;
use imgsrv_core::fuzzing::{behind, time_and_id};
use imgsrv_core::model::Cursor;
use libfuzzer_sys::fuzz_target;

fn check<const N: usize>(cursor: &Cursor) {
    let Some(keys) = cursor.keys::<N>() else { return };
    let again = Cursor::behind(&keys.each_ref().map(String::as_str));
    assert_eq!(again.keys(), Some(keys));
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(cursor) = text.parse::<Cursor>() {
        assert_eq!(cursor.as_ref(), text);
        check::<1>(&cursor);
        check::<2>(&cursor);
        check::<3>(&cursor);
        if let Some((at, id)) = time_and_id(&cursor) {
            assert!((1970..=9999).contains(&at.year()), "{at}");
            assert_eq!(time_and_id(&behind(at, id)), Some((at, id)));
        }
    }
    // What stands in JSON becomes six times as long at most, and a third longer in base64.
    if text.len() <= 120 {
        let keys: Vec<&str> = text.split('\n').collect();
        let cursor = Cursor::behind(&keys);
        assert_eq!(cursor.to_string().parse().as_ref(), Ok(&cursor));
        match keys[..] {
            [one] => assert_eq!(cursor.keys(), Some([one].map(str::to_owned))),
            [one, two] => assert_eq!(cursor.keys(), Some([one, two].map(str::to_owned))),
            _ => assert_eq!((cursor.keys::<1>(), cursor.keys::<2>()), (None, None)),
        }
    }
});
