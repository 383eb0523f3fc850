//! What a client would like to have (RFC 9110 §12.5).

use poem::http::{HeaderMap, HeaderName};

/// The weights that a header such as `Accept` gives, in thousandths.
#[derive(Clone, Debug)]
pub(crate) struct Wishes(Vec<(String, u16)>);

impl Wishes {
    /// What all headers of that name say. What cannot be read is not a wish.
    pub(crate) fn of(headers: &HeaderMap, name: &HeaderName) -> Self {
        let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        Self(texts.flat_map(|text| text.split(',')).filter_map(wish).collect())
    }

    /// The weight of exactly this.
    pub(crate) fn named(&self, name: &str) -> Option<u16> {
        self.0.iter().find(|(wish, _)| wish.eq_ignore_ascii_case(name)).map(|(_, weight)| *weight)
    }

    /// The weight of this, or else the one of any of the `wildcards`.
    pub(crate) fn weight(&self, name: &str, wildcards: &[&str]) -> u16 {
        let names = std::iter::once(name).chain(wildcards.iter().copied());
        names.into_iter().find_map(|name| self.named(name)).unwrap_or(0)
    }
}

fn wish(text: &str) -> Option<(String, u16)> {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().filter(|name| !name.is_empty())?;
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    Some((name.to_owned(), weight.map_or(Some(1000), thousandths)?))
}

/// `0`, `0.5`, `1.000` (RFC 9110 §12.4.2).
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !matches!(whole, "0" | "1") || fraction.len() > 3 || !digits(fraction) {
        return None;
    }
    let weight = format!("{whole}{fraction:0<3}").parse().ok()?;
    Some(weight).filter(|weight| *weight <= 1000)
}

#[cfg(test)]
mod tests {
    use poem::http::header;

    use super::*;

    fn wishes(texts: &[&'static str]) -> Wishes {
        let headers = texts.iter().map(|text| (header::ACCEPT, poem::http::HeaderValue::from_static(text)));
        Wishes::of(&headers.collect(), &header::ACCEPT)
    }

    #[test]
    fn weights_are_thousandths() {
        for (text, weight) in [("1", 1000), ("0", 0), ("0.5", 500), ("0.001", 1), ("1.000", 1000), ("0.", 0)] {
            assert_eq!(thousandths(text), Some(weight), "{text}");
        }
        for text in ["", "2", "1.001", "0.0001", "-1", "0,5", "x", "0.x"] {
            assert_eq!(thousandths(text), None, "{text}");
        }
    }

    #[test]
    fn a_name_counts_before_a_wildcard() {
        let wishes = wishes(&["text/html;level=1;q=0.4, application/*;q=0.7", "*/*; q=0.1,, ;q=1"]);
        assert_eq!(wishes.named("TEXT/html"), Some(400));
        assert_eq!(wishes.weight("application/json", &["application/*", "*/*"]), 700);
        assert_eq!(wishes.weight("image/png", &["image/*", "*/*"]), 100);
        assert_eq!(wishes.weight("image/png", &[]), 0);
    }
}
