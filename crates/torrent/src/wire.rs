//! The peer wire: BEP 3's messages, BEP 52's (hashes), BEP 6 (fast), BEP 10 (extensions), BEP 9 (metadata), BEP 11 (peer exchange),
//! message stream encryption.

mod codec;
mod ext;
mod framing;
mod hashes;
mod mse;

use bytes::Bytes;

use crate::{InfoHash, PeerId};
pub use codec::Codec;
pub use ext::{ExtHandshake, ExtensionIds, Metadata, Pex, PexFlags};
pub use hashes::{HashRequest, MAX_HASHES};
pub use mse::{Encryption, TorrentKeys};

/// Requests are for this many bytes or less (BEP 3): what everybody asks for and everybody answers.
pub const BLOCK_LEN: u32 = 16 * 1024;

/// The longest block that a peer may ask for or send; beyond this the link is closed.
pub const MAX_BLOCK_LEN: u32 = 128 * 1024;

/// Metadata travels in pieces of 16 KiB (BEP 9).
pub const METADATA_PIECE_LEN: u32 = 16 * 1024;

/// A part of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// The piece's index.
    pub piece: u32,
    /// Offset in the piece, in bytes.
    pub begin: u32,
    /// Length in bytes.
    pub len: u32,
}

/// The first message in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What the peer can do: the eight reserved bytes.
    pub reserved: Reserved,
    /// Which torrent the link is about.
    pub info_hash: InfoHash,
    /// Who speaks.
    pub peer_id: PeerId,
}

/// The handshake's reserved bytes as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved(pub [u8; 8]);

impl Reserved {
    /// What we speak: the fast extension and the extension protocol.
    pub const OURS: Self = Self([0, 0, 0, 0, 0, 0x10, 0, 0x04]);

    /// These, and the DHT.
    #[must_use]
    pub fn with_dht(mut self) -> Self {
        self.0[7] |= 0x01;
        self
    }

    /// These, and version 2 of the torrent (BEP 52).
    #[must_use]
    pub fn with_v2(mut self) -> Self {
        self.0[7] |= 0x10;
        self
    }

    /// BEP 10.
    pub fn extension_protocol(self) -> bool {
        self.0[5] & 0x10 != 0
    }

    /// BEP 6.
    pub fn fast(self) -> bool {
        self.0[7] & 0x04 != 0
    }

    /// BEP 5.
    pub fn dht(self) -> bool {
        self.0[7] & 0x01 != 0
    }
}

/// What travels on a link between two BitTorrent peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Not on the wire: what follows is to be encrypted, on a link that we dialled for this torrent. Sent first or
    /// never; a codec that cannot encrypt goes on in plain.
    Encrypt(InfoHash),
    /// BEP 3's handshake, once, first.
    Handshake(Handshake),
    /// Nothing to say, still here.
    KeepAlive,
    /// We will not answer your requests.
    Choke,
    /// We will answer your requests.
    Unchoke,
    /// You have what we want.
    Interested,
    /// You have nothing that we want.
    NotInterested,
    /// A piece is new with the sender.
    Have(u32),
    /// All pieces the sender has; only right after the handshake. The session checks the length.
    Bitfield(Bytes),
    /// Send this block.
    Request(Block),
    /// A block's bytes.
    Piece {
        /// The piece's index.
        piece: u32,
        /// Offset in the piece.
        begin: u32,
        /// The block.
        data: Bytes,
    },
    /// A request is no longer needed.
    Cancel(Block),
    /// The sender's DHT port (BEP 5).
    Port(u16),
    /// BEP 6: a piece worth asking the sender for.
    Suggest(u32),
    /// BEP 6: instead of a full bitfield.
    HaveAll,
    /// BEP 6: instead of an empty bitfield.
    HaveNone,
    /// BEP 6: a request that will not be answered.
    Reject(Block),
    /// BEP 6: a piece that may be asked for while choked.
    AllowedFast(u32),
    /// BEP 10: the extension handshake.
    ExtHandshake(ExtHandshake),
    /// BEP 9: metadata exchange. Sent only when the peer's handshake names `ut_metadata`.
    Metadata(Metadata),
    /// BEP 11: peer exchange. Sent only when the peer's handshake names `ut_pex`.
    Pex(Pex),
    /// BEP 54: the sender no longer has a piece. Sent only when the peer's handshake names `lt_donthave`.
    DontHave(u32),
    /// BEP 52: asks for nodes of a file's hash tree.
    HashRequest(HashRequest),
    /// BEP 52: the nodes that were asked for.
    Hashes {
        /// The request.
        request: HashRequest,
        /// 32 bytes each: those of the layer, then those beside their way to the root.
        hashes: Bytes,
    },
    /// BEP 52: a request that will not be answered.
    HashReject(HashRequest),
    /// A message that we do not know; its content was skipped. Never sent.
    Unknown {
        /// The message id, or 20 for an extension that we did not offer.
        id: u8,
    },
}
