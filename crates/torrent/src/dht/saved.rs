//! What a node of the DHT remembers for its next start.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::node_id::NodeId;
use crate::bencode::{Document, Item, Limits};
use crate::replace::replace;
use crate::tracker::{compact_v4, compact_v6, read_compact_v4, read_compact_v6};

/// Addresses read of each family.
const MAX_NODES: usize = 500;

/// Names and neighbours of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Our names, for IPv4 and IPv6.
    pub ids: [Option<NodeId>; 2],
    /// Nodes that answered.
    pub nodes: Vec<SocketAddr>,
}

impl Saved {
    /// A bencoded dictionary: `id4`, `id6`, and the addresses in `nodes` and `nodes6`, six and eighteen bytes each.
    pub fn encode(&self) -> Vec<u8> {
        let mut root = Item::dict();
        for (key, id) in ["id4", "id6"].into_iter().zip(self.ids) {
            if let Some(id) = id {
                root.insert(key, &id.0[..]);
            }
        }
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for node in &self.nodes {
            match node {
                SocketAddr::V4(addr) => v4.extend_from_slice(&compact_v4(addr)),
                SocketAddr::V6(addr) => v6.extend_from_slice(&compact_v6(addr)),
            }
        }
        root.with("nodes", v4).with("nodes6", v6).encode()
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When the disk does not take it; the old file is still there then.
    pub fn save(&self, file: &Path) -> io::Result<()> {
        replace(file, &self.encode())
    }

    /// Reads a file; one that is not there, or damaged, holds nothing.
    pub fn load(file: &Path) -> Self {
        std::fs::read(file)
            .map(|bytes| Self::decode(&bytes))
            .unwrap_or_default()
    }

    /// Reads what [`Saved::encode`] wrote. What cannot be read is left out: it only costs a slower start.
    pub fn decode(bytes: &[u8]) -> Self {
        let Ok(doc) = Document::parse(bytes, Limits::NETWORK) else {
            return Self::default();
        };
        let root = doc.root();
        let field = |key: &[u8]| root.get(key).and_then(|value| value.as_bytes()).unwrap_or_default();
        let v4 = read_compact_v4(field(b"nodes"), MAX_NODES);
        let v6 = read_compact_v6(field(b"nodes6"), MAX_NODES);
        Self {
            ids: [b"id4", b"id6"].map(|key| field(key).try_into().ok().map(NodeId)),
            nodes: v4.chain(v6).collect(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_and_damage_is_not() {
        let saved = Saved {
            ids: [Some(NodeId([1; 20])), None],
            nodes: vec!["1.2.3.4:5".parse().unwrap(), "[2001::2]:6".parse().unwrap()],
        };
        let bytes = saved.encode();
        assert_eq!(Saved::decode(&bytes), saved);
        for len in 0..bytes.len() {
            assert_eq!(Saved::decode(&bytes[..len]), Saved::default());
        }
    }
}
