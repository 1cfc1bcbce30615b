//! Bencoding (BEP 3): a borrowed decoder and a canonical encoder.
//!
//! The decoder walks the bytes once, without recursion, and writes one small entry per value into a flat table; a
//! [`Value`] is a view of one entry. Depth and number of values are capped. Every value knows its exact span, so the
//! raw `info` dictionary can be hashed as it stands. Like libtorrent it takes dictionaries whose keys are unsorted or
//! repeated (the first wins), leading zeros, and, where the caller asks for a prefix, bytes after the value.

use std::collections::BTreeMap;

/// How much a decoder takes before it refuses.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Lists and dictionaries inside each other.
    pub depth: usize,
    /// Values and keys in all.
    pub values: usize,
}

impl Limits {
    /// For what a peer or tracker sends.
    pub const NETWORK: Self = Self {
        depth: 20,
        values: 50_000,
    };
    /// For a .torrent file, as libtorrent has it: 100 levels, 3 million values.
    pub const METAINFO: Self = Self {
        depth: 100,
        values: 3_000_000,
    };
}

/// The bytes are not bencoded, or too much of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end inside a value.
    #[error("the data ends in the middle of a value")]
    Truncated,
    /// A byte that cannot stand where it does.
    #[error("unexpected byte at offset {0}")]
    Unexpected(usize),
    /// A string's length does not fit.
    #[error("impossible string length at offset {0}")]
    Length(usize),
    /// Nested beyond [`Limits::depth`].
    #[error("nested too deeply")]
    Depth,
    /// More values than [`Limits::values`].
    #[error("too many values")]
    Values,
    /// Bytes after the value.
    #[error("unexpected data after the end, at offset {0}")]
    Trailing(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Int,
    Bytes,
    List,
    Dict,
}

/// One value: its span, where its content begins, and the entry after it and all it holds.
#[derive(Clone, Copy, Debug)]
struct Entry {
    kind: Kind,
    start: u32,
    content: u32,
    end: u32,
    next: u32,
}

/// Decoded bytes; [`Document::root`] is where to begin.
#[derive(Debug)]
pub struct Document<'a> {
    bytes: &'a [u8],
    entries: Vec<Entry>,
}

/// An open list or dictionary while decoding.
struct Open {
    entry: usize,
    is_dict: bool,
    /// In a dictionary: a key was read and its value comes next.
    has_key: bool,
}

impl<'a> Document<'a> {
    /// Decodes bytes that hold one value and nothing else.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not bencoded or go beyond `limits`.
    pub fn parse(bytes: &'a [u8], limits: Limits) -> Result<Self, DecodeError> {
        let (doc, rest) = Self::parse_prefix(bytes, limits)?;
        if !rest.is_empty() {
            return Err(DecodeError::Trailing(bytes.len() - rest.len()));
        }
        Ok(doc)
    }

    /// Decodes the value at the front and gives back the bytes after it.
    ///
    /// # Errors
    /// [`DecodeError`] when no whole value stands at the front, or it goes beyond `limits`.
    pub fn parse_prefix(bytes: &'a [u8], limits: Limits) -> Result<(Self, &'a [u8]), DecodeError> {
        if u32::try_from(bytes.len()).is_err() {
            return Err(DecodeError::Values);
        }
        let mut entries: Vec<Entry> = Vec::new();
        let mut open: Vec<Open> = Vec::new();
        let mut at = 0usize;
        loop {
            let byte = *bytes.get(at).ok_or(DecodeError::Truncated)?;
            if let Some(top) = open.last_mut() {
                if byte == b'e' {
                    if top.has_key {
                        return Err(DecodeError::Unexpected(at));
                    }
                    at += 1;
                    let next = entries.len() as u32;
                    if let Some(entry) = entries.get_mut(top.entry) {
                        entry.end = at as u32;
                        entry.next = next;
                    }
                    open.pop();
                    if open.is_empty() {
                        break;
                    }
                    continue;
                }
                if top.is_dict {
                    if !top.has_key && !byte.is_ascii_digit() {
                        return Err(DecodeError::Unexpected(at));
                    }
                    top.has_key = !top.has_key;
                }
            }
            if entries.len() >= limits.values {
                return Err(DecodeError::Values);
            }
            let next = entries.len() as u32 + 1;
            let start = at as u32;
            match byte {
                b'i' => {
                    let end = int_end(bytes, at)?;
                    entries.push(Entry {
                        kind: Kind::Int,
                        start,
                        content: start + 1,
                        end: end as u32,
                        next,
                    });
                    at = end;
                }
                b'0'..=b'9' => {
                    let (content, end) = string_span(bytes, at)?;
                    entries.push(Entry {
                        kind: Kind::Bytes,
                        start,
                        content: content as u32,
                        end: end as u32,
                        next,
                    });
                    at = end;
                }
                b'l' | b'd' => {
                    if open.len() >= limits.depth {
                        return Err(DecodeError::Depth);
                    }
                    let is_dict = byte == b'd';
                    let kind = if is_dict { Kind::Dict } else { Kind::List };
                    open.push(Open {
                        entry: entries.len(),
                        is_dict,
                        has_key: false,
                    });
                    entries.push(Entry {
                        kind,
                        start,
                        content: start + 1,
                        end: start,
                        next,
                    });
                    at += 1;
                }
                _ => return Err(DecodeError::Unexpected(at)),
            }
            if open.is_empty() {
                break;
            }
        }
        Ok((Self { bytes, entries }, &bytes[at..]))
    }

    /// The outermost value.
    pub fn root(&self) -> Value<'a, '_> {
        Value { doc: self, at: 0 }
    }
}

/// Finds the end of `i<digits>e` at `at`.
fn int_end(bytes: &[u8], at: usize) -> Result<usize, DecodeError> {
    let mut end = at + 1;
    if bytes.get(end) == Some(&b'-') {
        end += 1;
    }
    let digits = end;
    while bytes.get(end).is_some_and(u8::is_ascii_digit) {
        end += 1;
    }
    match bytes.get(end) {
        Some(b'e') if end > digits => Ok(end + 1),
        Some(_) => Err(DecodeError::Unexpected(end)),
        None => Err(DecodeError::Truncated),
    }
}

/// Where the content of the string at `at` begins and ends.
fn string_span(bytes: &[u8], at: usize) -> Result<(usize, usize), DecodeError> {
    let mut len = 0usize;
    let mut content = at;
    loop {
        match bytes.get(content) {
            Some(&digit @ b'0'..=b'9') => {
                len = len
                    .checked_mul(10)
                    .and_then(|len| len.checked_add(usize::from(digit - b'0')))
                    .ok_or(DecodeError::Length(at))?;
                content += 1;
            }
            Some(b':') => break,
            Some(_) => return Err(DecodeError::Unexpected(content)),
            None => return Err(DecodeError::Truncated),
        }
    }
    content += 1;
    let end = content.checked_add(len).ok_or(DecodeError::Length(at))?;
    if end > bytes.len() {
        return Err(DecodeError::Truncated);
    }
    Ok((content, end))
}

/// One decoded value.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a, 'd> {
    doc: &'d Document<'a>,
    at: u32,
}

impl<'a, 'd> Value<'a, 'd> {
    fn entry(&self) -> Entry {
        self.doc.entries[self.at as usize]
    }

    /// The value's own bytes, from its first to its last.
    pub fn raw(&self) -> &'a [u8] {
        let entry = self.entry();
        &self.doc.bytes[entry.start as usize..entry.end as usize]
    }

    /// The integer, when it is one and fits 64 bits.
    pub fn as_int(&self) -> Option<i64> {
        let entry = self.entry();
        if entry.kind != Kind::Int {
            return None;
        }
        let digits = &self.doc.bytes[entry.content as usize..entry.end as usize - 1];
        std::str::from_utf8(digits).ok()?.parse().ok()
    }

    /// The integer, when it is one, fits and is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        self.as_int().and_then(|int| u64::try_from(int).ok())
    }

    /// The string's bytes, when it is one.
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        let entry = self.entry();
        (entry.kind == Kind::Bytes).then(|| &self.doc.bytes[entry.content as usize..entry.end as usize])
    }

    /// The string, when it is one and UTF-8.
    pub fn as_str(&self) -> Option<&'a str> {
        self.as_bytes().and_then(|bytes| std::str::from_utf8(bytes).ok())
    }

    /// Whether this is a dictionary.
    pub fn is_dict(&self) -> bool {
        self.entry().kind == Kind::Dict
    }

    /// Whether this is a list.
    pub fn is_list(&self) -> bool {
        self.entry().kind == Kind::List
    }

    /// The list's items; `None` when it is no list.
    pub fn items(&self) -> Option<impl Iterator<Item = Value<'a, 'd>> + use<'a, 'd>> {
        let entry = self.entry();
        (entry.kind == Kind::List).then(|| self.children(entry))
    }

    /// The dictionary's pairs in the order of the bytes; `None` when it is no dictionary.
    pub fn pairs(&self) -> Option<impl Iterator<Item = (&'a [u8], Value<'a, 'd>)> + use<'a, 'd>> {
        let entry = self.entry();
        if entry.kind != Kind::Dict {
            return None;
        }
        let mut children = self.children(entry);
        Some(std::iter::from_fn(move || {
            let key = children.next()?.as_bytes()?;
            Some((key, children.next()?))
        }))
    }

    /// The first value under `key` of a dictionary.
    pub fn get(&self, key: &[u8]) -> Option<Value<'a, 'd>> {
        self.pairs()?.find(|(name, _)| *name == key).map(|(_, value)| value)
    }

    fn children(&self, entry: Entry) -> impl Iterator<Item = Value<'a, 'd>> + use<'a, 'd> {
        let doc = self.doc;
        let mut at = self.at + 1;
        std::iter::from_fn(move || {
            if at >= entry.next {
                return None;
            }
            let child = Value { doc, at };
            at = child.entry().next;
            Some(child)
        })
    }
}

/// A value to encode. Dictionaries are sorted by key, as BEP 3 demands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// An integer.
    Int(i64),
    /// A byte string.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Item>),
    /// A dictionary.
    Dict(BTreeMap<Vec<u8>, Item>),
    /// Bytes that are bencoded already and go out as they are, such as an `info` dictionary.
    Raw(Vec<u8>),
}

impl Item {
    /// An empty dictionary.
    pub fn dict() -> Self {
        Self::Dict(BTreeMap::new())
    }

    /// This dictionary with one more pair; any other item stays as it is.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Item>) -> Self {
        self.insert(key, value);
        self
    }

    /// Puts a pair into this dictionary; any other item stays as it is.
    pub fn insert(&mut self, key: &str, value: impl Into<Item>) {
        if let Self::Dict(map) = self {
            map.insert(key.as_bytes().to_vec(), value.into());
        }
    }

    /// The encoded bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.encode_into(&mut out);
        out
    }

    /// Appends the encoded bytes. Recursive: items are built by us, never from a peer's nesting.
    pub fn encode_into(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(int) => {
                out.push(b'i');
                out.extend_from_slice(int.to_string().as_bytes());
                out.push(b'e');
            }
            Self::Bytes(bytes) => encode_bytes(bytes, out),
            Self::List(items) => {
                out.push(b'l');
                for item in items {
                    item.encode_into(out);
                }
                out.push(b'e');
            }
            Self::Dict(map) => {
                out.push(b'd');
                for (key, value) in map {
                    encode_bytes(key, out);
                    value.encode_into(out);
                }
                out.push(b'e');
            }
            Self::Raw(raw) => out.extend_from_slice(raw),
        }
    }
}

fn encode_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(bytes.len().to_string().as_bytes());
    out.push(b':');
    out.extend_from_slice(bytes);
}

impl From<i64> for Item {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<u32> for Item {
    fn from(int: u32) -> Self {
        Self::Int(int.into())
    }
}

impl From<&str> for Item {
    fn from(text: &str) -> Self {
        Self::Bytes(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Item {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for Item {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl From<Vec<Item>> for Item {
    fn from(items: Vec<Item>) -> Self {
        Self::List(items)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<Document<'_>, DecodeError> {
        Document::parse(bytes, Limits::NETWORK)
    }

    #[test]
    fn values_and_spans() {
        let bytes = b"d3:agei-42e4:infod1:ai1e1:bleel4:lastli7e1:xe5:emptydee";
        let err = parse(bytes).unwrap_err();
        assert_eq!(err, DecodeError::Unexpected(30), "a list is no key");

        let bytes = b"d3:agei-42e4:infod1:ai1e1:blee4:lastli7e1:xe5:emptydee";
        let doc = parse(bytes).unwrap();
        let root = doc.root();
        assert_eq!(root.raw(), bytes);
        assert_eq!(root.get(b"age").unwrap().as_int(), Some(-42));
        assert_eq!(root.get(b"age").unwrap().as_u64(), None);
        assert_eq!(root.get(b"info").unwrap().raw(), b"d1:ai1e1:blee");
        let last = root.get(b"last").unwrap();
        let items: Vec<_> = last.items().unwrap().map(|item| item.raw()).collect();
        assert_eq!(items, [&b"i7e"[..], b"1:x"]);
        assert!(root.get(b"empty").unwrap().pairs().unwrap().next().is_none());
        assert!(root.get(b"none").is_none() && root.items().is_none() && last.get(b"x").is_none());
        let keys: Vec<_> = root.pairs().unwrap().map(|(key, _)| key).collect();
        assert_eq!(keys, [&b"age"[..], b"info", b"last", b"empty"]);
    }

    #[test]
    fn malformed_bytes_are_named() {
        use DecodeError::*;
        for (bytes, want) in [
            (&b""[..], Truncated),
            (b"i5", Truncated),
            (b"ie", Unexpected(1)),
            (b"i-e", Unexpected(2)),
            (b"i1.5e", Unexpected(2)),
            (b"5:abcd", Truncated),
            (b"5abcde", Unexpected(1)),
            (b"d1:ae", Unexpected(4)),
            (b"di1ei2ee", Unexpected(1)),
            (b"l", Truncated),
            (b"e", Unexpected(0)),
            (b"i1ei2e", Trailing(3)),
            (b"18446744073709551615:", Length(0)),
            (b"99999999999999999999999:a", Length(0)),
        ] {
            assert_eq!(parse(bytes).unwrap_err(), want, "{}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn numbers_beyond_64_bits_are_no_numbers() {
        assert_eq!(parse(b"i9223372036854775807e").unwrap().root().as_int(), Some(i64::MAX));
        assert_eq!(parse(b"i9223372036854775808e").unwrap().root().as_int(), None);
        assert_eq!(
            parse(b"i-9223372036854775808e").unwrap().root().as_int(),
            Some(i64::MIN)
        );
        assert_eq!(parse(b"i007e").unwrap().root().as_int(), Some(7));
    }

    #[test]
    fn bombs_are_refused() {
        let deep = vec![b'l'; 1_000_000];
        assert_eq!(parse(&deep).unwrap_err(), DecodeError::Depth);
        let deep = b"d1:a".repeat(1000);
        assert_eq!(parse(&deep).unwrap_err(), DecodeError::Depth);
        let mut wide = vec![b'l'];
        wide.extend(b"0:".repeat(60_000));
        wide.push(b'e');
        assert_eq!(parse(&wide).unwrap_err(), DecodeError::Values);
        let mut level = b"l".repeat(20);
        level.extend(b"e".repeat(20));
        assert!(parse(&level).is_ok());
    }

    #[test]
    fn a_prefix_gives_back_the_rest() {
        let (doc, rest) = Document::parse_prefix(b"d1:ai1eeDATA", Limits::NETWORK).unwrap();
        assert_eq!((doc.root().raw(), rest), (&b"d1:ai1ee"[..], &b"DATA"[..]));
        let (_, rest) = Document::parse_prefix(b"i1ex", Limits::NETWORK).unwrap();
        assert_eq!(rest, b"x");
    }

    #[test]
    fn encoding_is_canonical() {
        let item = Item::dict()
            .with("zebra", 1i64)
            .with("apple", vec![Item::from("x"), Item::Int(-3)])
            .with("raw", Item::Raw(b"d1:ai1ee".to_vec()));
        assert_eq!(item.encode(), b"d5:applel1:xi-3ee3:rawd1:ai1ee5:zebrai1ee");
    }

    #[test]
    fn random_bytes_never_panic() {
        use rand::{Rng, SeedableRng};
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let alphabet = b"dlei0123456789:-ax";
        for _ in 0..200_000 {
            let len = rng.random_range(0..40);
            let bytes: Vec<u8> = (0..len)
                .map(|_| alphabet[rng.random_range(0..alphabet.len())])
                .collect();
            if let Ok((doc, rest)) = Document::parse_prefix(&bytes, Limits { depth: 5, values: 10 }) {
                let root = doc.root();
                assert_eq!(root.raw().len() + rest.len(), bytes.len());
                let _ = (
                    root.as_int(),
                    root.as_bytes(),
                    root.as_str(),
                    root.get(b"a").map(|v| v.as_u64()),
                );
                if let Some(items) = root.items() {
                    let inner: usize = items.map(|item| item.raw().len()).sum();
                    assert_eq!(inner + 2, root.raw().len());
                }
            }
        }
    }
}
