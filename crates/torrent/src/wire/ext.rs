//! The extension protocol (BEP 10) and what we speak over it: metadata (BEP 9), peer exchange (BEP 11).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use bytes::Bytes;
use dunlin_peer::CodecError;

use crate::bencode::{Document, Item, Limits, Value};
use crate::tracker::{compact_v4, compact_v6, read_compact_v4, read_compact_v6, v4_from, v6_from};

/// Our message ids, as our handshake tells them to peers.
pub(super) const OUR_METADATA: u8 = 2;
pub(super) const OUR_PEX: u8 = 1;
pub(super) const OUR_DONT_HAVE: u8 = 7;

/// Addresses taken from one peer exchange message; BEP 11 asks senders to stay at 50 and 50.
const MAX_PEX_PEERS: usize = 200;

/// The ids under which a peer wants our extension messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExtensionIds {
    /// BEP 9.
    pub ut_metadata: Option<u8>,
    /// BEP 11.
    pub ut_pex: Option<u8>,
    /// BEP 54.
    pub lt_donthave: Option<u8>,
}

impl ExtensionIds {
    /// Everything we speak, under our own ids.
    pub const OURS: Self = Self {
        ut_metadata: Some(OUR_METADATA),
        ut_pex: Some(OUR_PEX),
        lt_donthave: Some(OUR_DONT_HAVE),
    };
}

/// BEP 10's handshake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtHandshake {
    /// Which extensions the sender understands, under which ids.
    pub ids: ExtensionIds,
    /// `v`: the sender's client, for people; cut at 64 characters.
    pub client: Option<String>,
    /// `p`: the port on which the sender listens.
    pub port: Option<u16>,
    /// `reqq`: how many requests the sender keeps queued.
    pub request_queue: Option<u32>,
    /// `metadata_size`: bytes of the info dictionary (BEP 9); a claim.
    pub metadata_size: Option<u32>,
    /// `yourip`: our address as the sender sees it.
    pub your_ip: Option<IpAddr>,
    /// `upload_only`: the sender wants nothing (BEP 21).
    pub upload_only: bool,
}

impl ExtHandshake {
    pub(super) fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        let (doc, _) = Document::parse_prefix(payload, Limits::NETWORK)
            .map_err(|error| CodecError::new(format!("extension handshake: {error}")))?;
        let root = doc.root();
        if !root.is_dict() {
            return Err(CodecError::new("extension handshake: not a dictionary"));
        }
        let ids = root.get(b"m");
        let id = |name: &[u8]| -> Option<u8> {
            let id = ids.and_then(|ids| ids.get(name))?.as_u64()?;
            u8::try_from(id).ok().filter(|&id| id != 0)
        };
        let number = |key: &[u8]| root.get(key).and_then(|value| value.as_u64());
        Ok(Self {
            ids: ExtensionIds {
                ut_metadata: id(b"ut_metadata"),
                ut_pex: id(b"ut_pex"),
                lt_donthave: id(b"lt_donthave"),
            },
            client: root.get(b"v").and_then(|v| v.as_bytes()).map(clean_client),
            port: number(b"p")
                .and_then(|port| u16::try_from(port).ok())
                .filter(|&port| port != 0),
            request_queue: number(b"reqq").and_then(|count| u32::try_from(count).ok()),
            metadata_size: number(b"metadata_size").and_then(|size| u32::try_from(size).ok()),
            your_ip: root.get(b"yourip").and_then(|ip| ip.as_bytes()).and_then(ip_from_bytes),
            upload_only: number(b"upload_only").is_some_and(|flag| flag != 0),
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut ids = Item::dict();
        for (name, id) in [
            ("ut_metadata", self.ids.ut_metadata),
            ("ut_pex", self.ids.ut_pex),
            ("lt_donthave", self.ids.lt_donthave),
        ] {
            if let Some(id) = id {
                ids.insert(name, u32::from(id));
            }
        }
        let mut root = Item::dict().with("m", ids);
        if let Some(client) = &self.client {
            root.insert("v", client.as_str());
        }
        if let Some(port) = self.port {
            root.insert("p", u32::from(port));
        }
        if let Some(count) = self.request_queue {
            root.insert("reqq", count);
        }
        if let Some(size) = self.metadata_size {
            root.insert("metadata_size", size);
        }
        if let Some(ip) = self.your_ip {
            let octets = match ip {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            root.insert("yourip", octets);
        }
        if self.upload_only {
            root.insert("upload_only", 1u32);
        }
        root.encode()
    }
}

/// A client's name for a terminal or a page: no control characters, bounded.
fn clean_client(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .filter(|c| !c.is_control())
        .take(64)
        .collect()
}

fn ip_from_bytes(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(v4).into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(|v6| Ipv6Addr::from(v6).into())
}

/// BEP 9: the info dictionary in pieces of 16 KiB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metadata {
    /// Send this piece.
    Request {
        /// Its index.
        piece: u32,
    },
    /// A piece.
    Data {
        /// Its index.
        piece: u32,
        /// The whole info dictionary's length, as the sender claims it.
        total_size: u32,
        /// The piece's bytes.
        data: Bytes,
    },
    /// The sender will not send this piece.
    Reject {
        /// Its index.
        piece: u32,
    },
}

impl Metadata {
    /// `None` for a message type that BEP 9 does not name, which it asks us to ignore.
    pub(super) fn decode(payload: Bytes) -> Result<Option<Self>, CodecError> {
        let bad = |what: &str| CodecError::new(format!("ut_metadata: {what}"));
        let (doc, rest) = Document::parse_prefix(&payload, Limits::NETWORK).map_err(|e| bad(&e.to_string()))?;
        let root = doc.root();
        let number = |key: &[u8]| {
            root.get(key)
                .and_then(|value| value.as_u64())
                .and_then(|n| u32::try_from(n).ok())
        };
        let piece = number(b"piece").ok_or_else(|| bad("no piece"))?;
        match number(b"msg_type").ok_or_else(|| bad("no msg_type"))? {
            0 => Ok(Some(Self::Request { piece })),
            1 => {
                let total_size = number(b"total_size").ok_or_else(|| bad("no total_size"))?;
                if rest.len() > super::METADATA_PIECE_LEN as usize {
                    return Err(bad("piece longer than 16 KiB"));
                }
                let data = payload.slice(payload.len() - rest.len()..);
                Ok(Some(Self::Data {
                    piece,
                    total_size,
                    data,
                }))
            }
            2 => Ok(Some(Self::Reject { piece })),
            _ => Ok(None),
        }
    }

    /// The dictionary, and the bytes that follow it.
    pub(super) fn encode(&self) -> (Vec<u8>, Bytes) {
        let head = |kind: u32, piece: u32| Item::dict().with("msg_type", kind).with("piece", piece);
        match self {
            Self::Request { piece } => (head(0, *piece).encode(), Bytes::new()),
            Self::Data {
                piece,
                total_size,
                data,
            } => (head(1, *piece).with("total_size", *total_size).encode(), data.clone()),
            Self::Reject { piece } => (head(2, *piece).encode(), Bytes::new()),
        }
    }
}

/// What peer exchange says of an added peer (BEP 11's flag bits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PexFlags(pub u8);

impl PexFlags {
    /// The peer prefers encryption.
    pub const ENCRYPTION: u8 = 0x01;
    /// The peer only uploads.
    pub const SEED: u8 = 0x02;
    /// The peer speaks uTP.
    pub const UTP: u8 = 0x04;
    /// The peer speaks the holepunch extension.
    pub const HOLEPUNCH: u8 = 0x08;
    /// The sender dialled the peer, so it can be reached.
    pub const REACHABLE: u8 = 0x10;
}

/// BEP 11: who came to and who left the sender's swarm.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pex {
    /// New peers.
    pub added: Vec<(SocketAddr, PexFlags)>,
    /// Peers that left.
    pub dropped: Vec<SocketAddr>,
}

impl Pex {
    pub(super) fn decode(payload: &[u8]) -> Result<Self, CodecError> {
        let (doc, _) = Document::parse_prefix(payload, Limits::NETWORK)
            .map_err(|error| CodecError::new(format!("ut_pex: {error}")))?;
        let root = doc.root();
        let bytes = |key: &[u8]| {
            root.get(key)
                .and_then(|value: Value<'_, '_>| value.as_bytes())
                .unwrap_or_default()
        };
        let mut pex = Self::default();
        let flag = |key: &[u8], at: usize| PexFlags(bytes(key).get(at).copied().unwrap_or_default());
        for (at, chunk) in bytes(b"added").as_chunks().0.iter().take(MAX_PEX_PEERS).enumerate() {
            pex.added
                .extend(v4_from(chunk).map(|addr| (addr, flag(b"added.f", at))));
        }
        for (at, chunk) in bytes(b"added6").as_chunks().0.iter().take(MAX_PEX_PEERS).enumerate() {
            pex.added
                .extend(v6_from(chunk).map(|addr| (addr, flag(b"added6.f", at))));
        }
        pex.dropped.extend(read_compact_v4(bytes(b"dropped"), MAX_PEX_PEERS));
        pex.dropped.extend(read_compact_v6(bytes(b"dropped6"), MAX_PEX_PEERS));
        Ok(pex)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let (mut v4, mut v4_flags, mut v6, mut v6_flags) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (addr, flags) in &self.added {
            match addr {
                SocketAddr::V4(addr) => {
                    v4.extend(compact_v4(addr));
                    v4_flags.push(flags.0);
                }
                SocketAddr::V6(addr) => {
                    v6.extend(compact_v6(addr));
                    v6_flags.push(flags.0);
                }
            }
        }
        let (mut gone4, mut gone6) = (Vec::new(), Vec::new());
        for addr in &self.dropped {
            match addr {
                SocketAddr::V4(addr) => gone4.extend(compact_v4(addr)),
                SocketAddr::V6(addr) => gone6.extend(compact_v6(addr)),
            }
        }
        Item::dict()
            .with("added", v4)
            .with("added.f", v4_flags)
            .with("added6", v6)
            .with("added6.f", v6_flags)
            .with("dropped", gone4)
            .with("dropped6", gone6)
            .encode()
    }
}
