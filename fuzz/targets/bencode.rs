//! Bencoding: whatever decodes must encode canonically, and the canonical form must decode to itself.
#![no_main]

use dunlin_torrent::bencode::{Document, Item, Limits, Value};
use libfuzzer_sys::fuzz_target;

/// The value as something to encode; `None` where an integer is beyond 64 bits.
fn owned(value: Value<'_, '_>) -> Option<Item> {
    if let Some(items) = value.items() {
        return items.map(owned).collect::<Option<_>>().map(Item::List);
    }
    if let Some(pairs) = value.pairs() {
        let mut dict = std::collections::BTreeMap::new();
        for (key, value) in pairs {
            // Of equal keys the first counts.
            let value = owned(value)?;
            dict.entry(key.to_vec()).or_insert(value);
        }
        return Some(Item::Dict(dict));
    }
    match value.as_bytes() {
        Some(bytes) => Some(Item::Bytes(bytes.to_vec())),
        None => value.as_int().map(Item::Int),
    }
}

fuzz_target!(|data: &[u8]| {
    let Ok((doc, rest)) = Document::parse_prefix(data, Limits::NETWORK) else {
        return;
    };
    let root = doc.root();
    assert_eq!(root.raw().len() + rest.len(), data.len());
    assert!(Document::parse(root.raw(), Limits::NETWORK).is_ok());
    if let Some(item) = owned(root) {
        let bytes = item.encode();
        let again = Document::parse(&bytes, Limits::NETWORK).expect("what we encode decodes");
        assert_eq!(owned(again.root()), Some(item));
    }
});
