//! Which part of a file a request is for (RFC 9110, section 14).

use std::ops::Range;

use axum::http::{HeaderMap, header};

/// What is wanted of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    All,
    Part(Range<u64>),
    /// A range that lies outside of the file.
    Nothing,
}

/// Reads `Range` and `If-Range`. Several ranges at once, and what makes no sense, count as none: all is sent.
pub(super) fn wanted(headers: &HeaderMap, etag: &str, length: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let unchanged = headers.get(header::IF_RANGE).is_none() || text(header::IF_RANGE) == Some(etag);
    let range = text(header::RANGE).filter(|_| unchanged);
    let range = range.and_then(|range| range.trim().strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Wanted::All;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let range = match (first.trim(), last.trim()) {
        ("", suffix) => match number(suffix) {
            Some(count) => length.saturating_sub(count)..length,
            None => return Wanted::All,
        },
        (first, "") => match number(first) {
            Some(first) => first..length,
            None => return Wanted::All,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(length),
            _ => return Wanted::All,
        },
    };
    if range.is_empty() {
        Wanted::Nothing
    } else {
        Wanted::Part(range)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_players_send_them() {
        let ask = |range: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            wanted(&headers, "\"e\"", 100)
        };
        for (range, want) in [
            ("bytes=0-", Wanted::Part(0..100)),
            ("bytes=10-19", Wanted::Part(10..20)),
            ("bytes=90-1000", Wanted::Part(90..100)),
            ("bytes=-7", Wanted::Part(93..100)),
            ("bytes=-700", Wanted::Part(0..100)),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-4", Wanted::All),
            ("bytes=1-2,5-6", Wanted::All),
            ("bytes=x-", Wanted::All),
            ("lines=1-2", Wanted::All),
            ("bytes=0-18446744073709551615", Wanted::Part(0..100)),
        ] {
            assert_eq!(ask(range), want, "{range}");
        }
        let mut headers = HeaderMap::new();
        assert_eq!(wanted(&headers, "\"e\"", 100), Wanted::All);
        headers.insert(header::RANGE, "bytes=1-2".parse().unwrap());
        headers.insert(header::IF_RANGE, "\"other\"".parse().unwrap());
        assert_eq!(wanted(&headers, "\"e\"", 100), Wanted::All);
        headers.insert(header::IF_RANGE, "\"e\"".parse().unwrap());
        assert_eq!(wanted(&headers, "\"e\"", 100), Wanted::Part(1..3));
        assert_eq!(wanted(&headers, "\"e\"", 0), Wanted::Nothing);
    }
}
