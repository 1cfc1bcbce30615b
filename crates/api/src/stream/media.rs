//! Types and names of files, as players want them.

use std::fmt::Write as _;

use axum::http::HeaderValue;

/// What a file is, by the ending of its name. Nothing that a browser would run is ever named as such.
pub(super) fn type_of(name: &str) -> &'static str {
    let ending = name
        .rsplit_once('.')
        .map_or("", |(_, ending)| ending)
        .to_ascii_lowercase();
    match ending.as_str() {
        "mp4" | "m4v" => "video/mp4",
        "mkv" => "video/x-matroska",
        "webm" => "video/webm",
        "avi" => "video/x-msvideo",
        "mov" => "video/quicktime",
        "mpg" | "mpeg" => "video/mpeg",
        "ts" | "m2ts" => "video/mp2t",
        "ogv" => "video/ogg",
        "wmv" => "video/x-ms-wmv",
        "flv" => "video/x-flv",
        "mp3" => "audio/mpeg",
        "m4a" | "m4b" => "audio/mp4",
        "aac" => "audio/aac",
        "flac" => "audio/flac",
        "ogg" | "oga" => "audio/ogg",
        "opus" => "audio/opus",
        "wav" => "audio/wav",
        "srt" => "application/x-subrip",
        "vtt" => "text/vtt",
        "jpg" | "jpeg" => "image/jpeg",
        "png" => "image/png",
        "gif" => "image/gif",
        "pdf" => "application/pdf",
        "txt" | "nfo" => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// Whether a player has a use for it.
pub(super) fn plays(media_type: &str) -> bool {
    media_type.starts_with("video/") || media_type.starts_with("audio/")
}

/// A name as a part of an address (RFC 3986).
pub(super) fn percent_encode(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Under which name a file is shown or saved (RFC 6266).
pub(super) fn disposition(name: &str) -> HeaderValue {
    let value = format!("inline; filename*=UTF-8''{}", percent_encode(name));
    HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("inline"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_names() {
        assert_eq!(type_of("a film.MKV"), "video/x-matroska");
        assert_eq!(type_of("mp4"), "application/octet-stream");
        assert_eq!(type_of("page.html"), "application/octet-stream");
        assert!(plays(type_of("x.flac")) && !plays(type_of("x.txt")));
        assert_eq!(percent_encode("\u{fc} 1.mp4"), "%C3%BC%201.mp4");
        assert_eq!(
            disposition("a\"b").to_str().unwrap_or_default(),
            "inline; filename*=UTF-8''a%22b"
        );
    }
}
