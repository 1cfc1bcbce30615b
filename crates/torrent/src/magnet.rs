//! Magnet links (BEP 9, BEP 52): a torrent's hash or hashes and a few hints in a line of text.

use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::str::FromStr;

use crate::{InfoHash, InfoHashV2};

/// Parameters of one kind that are kept.
const MAX_EACH: usize = 200;
/// The longest link.
const MAX_LEN: usize = 64 * 1024;
/// Multihash: SHA-256, 32 bytes.
const SHA2_256: &str = "1220";

/// A parsed magnet link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Magnet {
    /// `xt=urn:btih:`: which torrent; without it, the truncated [`Magnet::info_hash_v2`].
    pub info_hash: InfoHash,
    /// `xt=urn:btmh:` with SHA-256: the same in version 2.
    pub info_hash_v2: Option<InfoHashV2>,
    /// `dn`: a name for display until the torrent's own is known.
    pub name: Option<String>,
    /// `tr`: trackers.
    pub trackers: Vec<String>,
    /// `x.pe`: peers, where they are given as addresses.
    pub peers: Vec<SocketAddr>,
    /// `ws`: web seeds.
    pub web_seeds: Vec<String>,
    /// `xl`: bytes; a claim.
    pub length: Option<u64>,
}

/// The text is no magnet link that we can use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MagnetError {
    /// Something else.
    #[error("not a magnet link")]
    NotMagnet,
    /// Longer than any real link.
    #[error("magnet link is too long")]
    TooLong,
    /// Neither `xt=urn:btih:` nor `xt=urn:btmh:`.
    #[error("magnet link names no torrent (no xt=urn:btih: or xt=urn:btmh:)")]
    NoTopic,
    /// The hash after `urn:btmh:` is none, or not of SHA-256.
    #[error("bad version 2 info hash in magnet link: it has to be 1220 and 64 hexadecimal digits")]
    BadMultihash,
    /// The hash after `urn:btih:` is none.
    #[error("bad info hash in magnet link: {0}")]
    BadHash(#[from] crate::id::ParseInfoHashError),
    /// Two different hashes.
    #[error("magnet link names two different torrents")]
    Ambiguous,
}

impl Magnet {
    /// A link with nothing but the hash.
    pub fn new(info_hash: InfoHash) -> Self {
        Self {
            info_hash,
            info_hash_v2: None,
            name: None,
            trackers: Vec::new(),
            peers: Vec::new(),
            web_seeds: Vec::new(),
            length: None,
        }
    }
}

impl FromStr for Magnet {
    type Err = MagnetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        if text.len() > MAX_LEN {
            return Err(MagnetError::TooLong);
        }
        let query = text
            .split_at_checked(8)
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("magnet:?"))
            .map(|(_, query)| query)
            .ok_or(MagnetError::NotMagnet)?;
        let mut hash = None;
        let mut magnet = Self::new(InfoHash([0; 20]));
        for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
            let value = decode(value);
            // Several values of one kind may be numbered: xt.1, tr.2.
            let key = match key.split_once('.') {
                Some((kind, number)) if number.bytes().all(|c| c.is_ascii_digit()) => kind,
                _ => key,
            };
            match key.to_ascii_lowercase().as_str() {
                "xt" => {
                    let Some((urn, digest)) = value.split_at_checked(9) else {
                        continue;
                    };
                    if urn.eq_ignore_ascii_case("urn:btih:") {
                        let found: InfoHash = digest.parse()?;
                        if hash.replace(found).is_some_and(|other| other != found) {
                            return Err(MagnetError::Ambiguous);
                        }
                    }
                    if urn.eq_ignore_ascii_case("urn:btmh:") {
                        let found = digest.strip_prefix(SHA2_256).and_then(|digest| digest.parse().ok());
                        let found: InfoHashV2 = found.ok_or(MagnetError::BadMultihash)?;
                        if magnet.info_hash_v2.replace(found).is_some_and(|other| other != found) {
                            return Err(MagnetError::Ambiguous);
                        }
                    }
                }
                "dn" if magnet.name.is_none() => {
                    let name: String = value.chars().filter(|c| !c.is_control()).take(255).collect();
                    magnet.name = (!name.is_empty()).then_some(name);
                }
                "tr" => push_url(&mut magnet.trackers, value),
                "ws" => push_url(&mut magnet.web_seeds, value),
                "x.pe" if magnet.peers.len() < MAX_EACH => {
                    magnet
                        .peers
                        .extend(value.parse::<SocketAddr>().ok().filter(|addr| addr.port() != 0));
                }
                "xl" => magnet.length = value.parse().ok(),
                _ => {}
            }
        }
        let truncated = magnet.info_hash_v2.map(|hash| hash.truncated());
        magnet.info_hash = hash.or(truncated).ok_or(MagnetError::NoTopic)?;
        Ok(magnet)
    }
}

fn push_url(urls: &mut Vec<String>, url: String) {
    if urls.len() < MAX_EACH && !url.is_empty() && !url.chars().any(char::is_control) && !urls.contains(&url) {
        urls.push(url);
    }
}

/// Percent-decoding, with `+` for a space as web forms have it; bytes that are not UTF-8 are replaced.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        bytes.push(match (byte, tail) {
            (b'%', [high, low, ..]) => match (hex_digit(*high), hex_digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = &tail[2..];
                    high << 4 | low
                }
                _ => byte,
            },
            (b'+', _) => b' ',
            _ => byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex_digit(c: u8) -> Option<u8> {
    char::from(c).to_digit(16).map(|digit| digit as u8)
}

fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

impl fmt::Display for Magnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut link = "magnet:?".to_owned();
        let only_v2 = self.info_hash_v2.is_some_and(|hash| hash.truncated() == self.info_hash);
        if !only_v2 {
            write!(link, "xt=urn:btih:{}", self.info_hash)?;
        }
        if let Some(hash) = &self.info_hash_v2 {
            let and = if only_v2 { "" } else { "&" };
            write!(link, "{and}xt=urn:btmh:{SHA2_256}{hash}")?;
        }
        if let Some(name) = &self.name {
            link.push_str("&dn=");
            encode(name, &mut link);
        }
        if let Some(length) = self.length {
            write!(link, "&xl={length}")?;
        }
        for (key, values) in [("tr", &self.trackers), ("ws", &self.web_seeds)] {
            for value in values {
                write!(link, "&{key}=")?;
                encode(value, &mut link);
            }
        }
        for peer in &self.peers {
            write!(link, "&x.pe={peer}")?;
        }
        f.write_str(&link)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const HEX: &str = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";

    #[test]
    fn a_full_link() {
        let link = format!(
            "magnet:?xt=urn:btih:{HEX}&dn=My+file%21%20%e2%82%ac&xl=1234&tr=udp%3A%2F%2Ft.example%3A80%2Fa\
             &tr.1=http://u/a&x.pe=127.0.0.1:6881&x.pe=[::1]:7000&x.pe=host.example:1&ws=http%3A%2F%2Fw%2F&zz=1&flag"
        );
        let magnet: Magnet = link.parse().unwrap();
        assert_eq!(magnet.info_hash.to_string(), HEX);
        assert_eq!(magnet.name.as_deref(), Some("My file! \u{20ac}"));
        assert_eq!(magnet.trackers, ["udp://t.example:80/a", "http://u/a"]);
        assert_eq!(
            magnet.peers,
            ["127.0.0.1:6881".parse().unwrap(), "[::1]:7000".parse().unwrap()]
        );
        assert_eq!(
            (magnet.web_seeds.as_slice(), magnet.length),
            (&["http://w/".to_owned()][..], Some(1234))
        );
        assert_eq!(magnet.to_string().parse::<Magnet>().unwrap(), magnet);
    }

    #[test]
    fn base32_and_upper_case() {
        let magnet: Magnet = "MAGNET:?XT=URN:BTIH:YEX6DQDLXISUVHOJ6UM3GNNKPQJWPKEK".parse().unwrap();
        assert_eq!(magnet.info_hash.to_string(), HEX);
    }

    #[test]
    fn hybrids_are_taken_and_the_rest_is_refused_in_clear_words() {
        let v2 = "urn:btmh:1220caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa9f6105232b28ad099f3a302e";
        for both in [format!("magnet:?xt=urn:btih:{HEX}&xt={v2}"), format!("magnet:?xt={v2}")] {
            let magnet: Magnet = both.parse().unwrap();
            assert_eq!(magnet.info_hash_v2.unwrap().to_string(), v2["urn:btmh:1220".len()..]);
            assert_eq!(magnet.to_string(), both);
        }
        assert_eq!(
            format!("magnet:?xt={v2}")
                .parse::<Magnet>()
                .unwrap()
                .info_hash
                .to_string(),
            "caf1e1c30e81cb361b9ee167c4aa64228a7fa4fa"
        );
        let refuse = |link: &str| link.parse::<Magnet>().unwrap_err();
        assert_eq!(refuse("magnet:?xt=urn:btmh:1220ab"), MagnetError::BadMultihash);
        assert_eq!(refuse("magnet:?dn=x"), MagnetError::NoTopic);
        assert_eq!(refuse("http://x/"), MagnetError::NotMagnet);
        assert_eq!(refuse(""), MagnetError::NotMagnet);
        assert!(matches!(refuse("magnet:?xt=urn:btih:zz"), MagnetError::BadHash(_)));
        let other = "0".repeat(40);
        assert_eq!(
            refuse(&format!("magnet:?xt=urn:btih:{HEX}&xt=urn:btih:{other}")),
            MagnetError::Ambiguous
        );
        assert_eq!(
            refuse(&format!("magnet:?xt=urn:btih:{HEX}&dn={}", "a".repeat(70_000))),
            MagnetError::TooLong
        );
    }

    #[test]
    fn random_text_never_panics() {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(2);
        let parts = [
            "magnet:?",
            "xt=",
            "urn:btih:",
            HEX,
            "&",
            "%",
            "%f",
            "%ff",
            "é",
            "dn=",
            "x.pe=",
            "1:2",
            "tr.",
            "=",
        ];
        for _ in 0..50_000 {
            let count = rng.random_range(0..12);
            let text: String = (0..count).map(|_| parts[rng.random_range(0..parts.len())]).collect();
            if let Ok(magnet) = format!("magnet:?{text}").parse::<Magnet>() {
                assert_eq!(
                    magnet.to_string().parse::<Magnet>().unwrap().info_hash,
                    magnet.info_hash
                );
            }
        }
    }
}
