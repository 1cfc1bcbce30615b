//! The names of BEP 3 and BEP 52: which torrent, and which peer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// A torrent's name on the wire: the SHA-1 of its raw `info` dictionary, or of a version 2 torrent the truncated
/// [`InfoHashV2`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHash(pub [u8; 20]);

impl InfoHash {
    /// The info hash of a raw (bencoded) `info` dictionary.
    pub fn of_info(raw_info: &[u8]) -> Self {
        Self(Sha1::digest(raw_info).into())
    }
}

/// Names are shown in hexadecimal.
pub(crate) fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

impl fmt::Display for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for InfoHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an info hash.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an info hash is 40 hexadecimal or 32 base32 characters")]
pub struct ParseInfoHashError;

impl FromStr for InfoHash {
    type Err = ParseInfoHashError;

    /// Reads 40 hexadecimal digits or, as old magnet links have it, 32 characters of RFC 4648 base32.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 20];
        match text.len() {
            40 => hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseInfoHashError)?,
            32 => {
                let mut bits: u64 = 0;
                let mut filled = 0u32;
                let mut out = bytes.iter_mut();
                for c in text.bytes() {
                    let value = match c.to_ascii_uppercase() {
                        c @ b'A'..=b'Z' => c - b'A',
                        c @ b'2'..=b'7' => c - b'2' + 26,
                        _ => return Err(ParseInfoHashError),
                    };
                    bits = (bits << 5) | u64::from(value);
                    filled += 5;
                    if filled >= 8 {
                        filled -= 8;
                        if let Some(slot) = out.next() {
                            *slot = (bits >> filled) as u8;
                        }
                        bits &= (1 << filled) - 1;
                    }
                }
            }
            _ => return Err(ParseInfoHashError),
        }
        Ok(Self(bytes))
    }
}

impl Serialize for InfoHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for InfoHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The SHA-256 of a version 2 torrent's raw `info` dictionary (BEP 52).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InfoHashV2(pub [u8; 32]);

impl InfoHashV2 {
    /// The info hash of a raw (bencoded) `info` dictionary.
    pub fn of_info(raw_info: &[u8]) -> Self {
        Self(Sha256::digest(raw_info).into())
    }

    /// What stands for it on the wire, with trackers and in the DHT: its first 20 bytes.
    pub fn truncated(&self) -> InfoHash {
        let mut short = [0; 20];
        short.copy_from_slice(&self.0[..20]);
        InfoHash(short)
    }
}

impl fmt::Display for InfoHashV2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for InfoHashV2 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for InfoHashV2 {
    type Err = ParseInfoHashError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseInfoHashError)?;
        Ok(Self(bytes))
    }
}

impl Serialize for InfoHashV2 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A peer's name for one run of its program.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub [u8; 20]);

impl PeerId {
    /// A peer id in the style of BEP 20: eight bytes that name client and version, twelve from `random`.
    pub fn new(prefix: &[u8; 8], random: [u8; 12]) -> Self {
        let mut id = [0; 20];
        id[..8].copy_from_slice(prefix);
        id[8..].copy_from_slice(&random);
        Self(id)
    }

    /// The client that the id claims, for people: `Transmission 4.0.5`, `libtorrent 2.1.1`, or the printable bytes.
    pub fn client(&self) -> String {
        let [dash, a, b, version @ .., _, _, _, _, _, _, _, _, _, _, _, _] = &self.0;
        if *dash == b'-' && version.last() == Some(&b'-') && a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric() {
            let code = [*a, *b];
            let digits: Vec<String> = version[..4].iter().map(|&c| version_digit(c)).collect();
            let mut digits: &[String] = &digits;
            while digits.len() > 2 && digits.last().is_some_and(|d| d == "0") {
                digits = &digits[..digits.len() - 1];
            }
            let version = digits.join(".");
            return match client_name(&code) {
                Some(name) => format!("{name} {version}"),
                None => format!("{}{} {version}", char::from(*a), char::from(*b)),
            };
        }
        let text: String = self.0[..8]
            .iter()
            .map(|&c| if c.is_ascii_graphic() { char::from(c) } else { '.' })
            .collect();
        text
    }
}

/// BEP 20 versions are one character per part; letters go on after 9.
fn version_digit(c: u8) -> String {
    match c {
        b'0'..=b'9' => (c - b'0').to_string(),
        b'A'..=b'Z' => (c - b'A' + 10).to_string(),
        b'a'..=b'z' => (c - b'a' + 36).to_string(),
        _ => "?".into(),
    }
}

/// Client codes from BEP 20 and from what is seen in swarms today.
fn client_name(code: &[u8; 2]) -> Option<&'static str> {
    Some(match code {
        b"DN" => "Dunlin",
        b"AZ" => "Vuze",
        b"BI" => "BiglyBT",
        b"DE" => "Deluge",
        b"FD" => "Free Download Manager",
        b"KT" => "KTorrent",
        b"LT" => "libtorrent",
        b"lt" => "rTorrent",
        b"qB" => "qBittorrent",
        b"rQ" => "rqbit",
        b"TR" => "Transmission",
        b"TX" => "Tixati",
        b"UT" => "uTorrent",
        b"WW" => "WebTorrent",
        b"A2" => "aria2",
        b"XL" => "Xunlei",
        _ => return None,
    })
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for &c in &self.0 {
            if c.is_ascii_graphic() {
                write!(f, "{}", char::from(c))?;
            } else {
                write!(f, "%{c:02x}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_base32_name_the_same_torrent() {
        let hex = "c12fe1c06bba254a9dc9f519b335aa7c1367a88a";
        let base32 = "YEX6DQDLXISUVHOJ6UM3GNNKPQJWPKEK";
        let a: InfoHash = hex.parse().unwrap();
        assert_eq!(a, base32.parse().unwrap());
        assert_eq!(a, base32.to_lowercase().parse().unwrap());
        assert_eq!(a, hex.to_uppercase().parse().unwrap());
        assert_eq!(a.to_string(), hex);
        for bad in [
            "",
            "abc",
            "1EX6DQDLXISUVHOJ6UM3GNNKPQJWPKEK",
            "z12fe1c06bba254a9dc9f519b335aa7c1367a88a",
        ] {
            assert!(bad.parse::<InfoHash>().is_err(), "{bad}");
        }
    }

    #[test]
    fn clients_are_named() {
        assert_eq!(
            PeerId::new(b"-TR4050-", *b"abcdefghijkl").client(),
            "Transmission 4.0.5"
        );
        assert_eq!(PeerId::new(b"-LT2110-", *b"abcdefghijkl").client(), "libtorrent 2.1.1");
        assert_eq!(PeerId::new(b"-DN0100-", *b"abcdefghijkl").client(), "Dunlin 0.1");
        assert_eq!(PeerId(*b"M7-9-2--\0\x01ghijklmnop").client(), "M7-9-2--");
    }
}
