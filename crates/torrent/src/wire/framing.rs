//! Framing: a handshake, then messages with a four-byte length before each.

use bytes::{Buf, Bytes, BytesMut};
use dunlin_peer::{CodecError, SendBuf};

use super::ext::{ExtHandshake, ExtensionIds, Metadata, OUR_DONT_HAVE, OUR_METADATA, OUR_PEX, Pex};
use super::hashes::{HashRequest, MAX_BODY, REQUEST_LEN};
use super::{Block, Handshake, MAX_BLOCK_LEN, Message, Reserved};
use crate::metainfo::MAX_PIECES;
use crate::{InfoHash, PeerId};

pub(super) const PROTOCOL: &[u8; 20] = b"\x13BitTorrent protocol";
const HANDSHAKE_LEN: usize = 68;

const CHOKE: u8 = 0;
const UNCHOKE: u8 = 1;
const INTERESTED: u8 = 2;
const NOT_INTERESTED: u8 = 3;
const HAVE: u8 = 4;
const BITFIELD: u8 = 5;
const REQUEST: u8 = 6;
const PIECE: u8 = 7;
const CANCEL: u8 = 8;
const PORT: u8 = 9;
const SUGGEST: u8 = 13;
const HAVE_ALL: u8 = 14;
const HAVE_NONE: u8 = 15;
const REJECT: u8 = 16;
const ALLOWED_FAST: u8 = 17;
const EXTENDED: u8 = 20;
const HASH_REQUEST: u8 = 21;
const HASHES: u8 = 22;
const HASH_REJECT: u8 = 23;

/// The longest bitfield, in bytes.
const MAX_BITFIELD: usize = (MAX_PIECES as usize).div_ceil(8);
/// The longest extension message, and the longest unknown message that is skipped rather than refused.
const MAX_EXTENDED: usize = 256 * 1024;

/// One link's framing. The same one decodes and encodes: it learns the peer's extension ids from what it decodes and
/// uses them in what it encodes.
#[derive(Debug, Default)]
pub(super) struct Framing {
    shaken: bool,
    /// Bytes of an unknown message still to be thrown away.
    skip: usize,
    theirs: ExtensionIds,
}

impl Framing {
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Message>, CodecError> {
        if !self.shaken {
            let Some(handshake) = decode_handshake(input)? else {
                return Ok(None);
            };
            self.shaken = true;
            return Ok(Some(Message::Handshake(handshake)));
        }
        if self.skip > 0 {
            let now = self.skip.min(input.len());
            input.advance(now);
            self.skip -= now;
        }
        let Some(&len) = input.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = u32::from_be_bytes(len) as usize;
        if len == 0 {
            input.advance(4);
            return Ok(Some(Message::KeepAlive));
        }
        let Some(&id) = input.get(4) else { return Ok(None) };
        match bounds(id) {
            None if len > MAX_EXTENDED => return Err(CodecError::new(format!("message {id} of {len} bytes"))),
            None => {
                input.advance(4);
                self.skip = len;
                let now = len.min(input.len());
                input.advance(now);
                self.skip -= now;
                return Ok(Some(Message::Unknown { id }));
            }
            Some((min, max)) if len < min || len > max => {
                return Err(CodecError::new(format!("message {id} with impossible length {len}")));
            }
            Some(_) => {}
        }
        if input.len() < 4 + len {
            return Ok(None);
        }
        input.advance(5);
        let body = input.split_to(len - 1).freeze();
        self.decode_body(id, body).map(Some)
    }

    pub(super) fn encode(&mut self, msg: &Message, out: &mut SendBuf) {
        match msg {
            Message::Handshake(handshake) => {
                out.put_slice(PROTOCOL);
                out.put_slice(&handshake.reserved.0);
                out.put_slice(&handshake.info_hash.0);
                out.put_slice(&handshake.peer_id.0);
            }
            Message::KeepAlive => out.put_slice(&[0; 4]),
            Message::Choke => put(out, CHOKE, &[]),
            Message::Unchoke => put(out, UNCHOKE, &[]),
            Message::Interested => put(out, INTERESTED, &[]),
            Message::NotInterested => put(out, NOT_INTERESTED, &[]),
            Message::Have(piece) => put(out, HAVE, &piece.to_be_bytes()),
            Message::Bitfield(bytes) => {
                put_head(out, BITFIELD, bytes.len());
                out.put_bytes(bytes.clone());
            }
            Message::Request(block) => put(out, REQUEST, &block_bytes(block)),
            Message::Piece { piece, begin, data } => {
                put_head(out, PIECE, data.len() + 8);
                out.put_slice(&piece.to_be_bytes());
                out.put_slice(&begin.to_be_bytes());
                out.put_bytes(data.clone());
            }
            Message::Cancel(block) => put(out, CANCEL, &block_bytes(block)),
            Message::Port(port) => put(out, PORT, &port.to_be_bytes()),
            Message::Suggest(piece) => put(out, SUGGEST, &piece.to_be_bytes()),
            Message::HaveAll => put(out, HAVE_ALL, &[]),
            Message::HaveNone => put(out, HAVE_NONE, &[]),
            Message::Reject(block) => put(out, REJECT, &block_bytes(block)),
            Message::AllowedFast(piece) => put(out, ALLOWED_FAST, &piece.to_be_bytes()),
            Message::ExtHandshake(handshake) => put_extended(out, 0, &handshake.encode(), Bytes::new()),
            Message::Metadata(metadata) => {
                if let Some(id) = self.theirs.ut_metadata {
                    let (head, data) = metadata.encode();
                    put_extended(out, id, &head, data);
                }
            }
            Message::Pex(pex) => {
                if let Some(id) = self.theirs.ut_pex {
                    put_extended(out, id, &pex.encode(), Bytes::new());
                }
            }
            Message::DontHave(piece) => {
                if let Some(id) = self.theirs.lt_donthave {
                    put_extended(out, id, &piece.to_be_bytes(), Bytes::new());
                }
            }
            Message::HashRequest(request) => put(out, HASH_REQUEST, &request.bytes()),
            Message::Hashes { request, hashes } => {
                put_head(out, HASHES, REQUEST_LEN + hashes.len());
                out.put_slice(&request.bytes());
                out.put_bytes(hashes.clone());
            }
            Message::HashReject(request) => put(out, HASH_REJECT, &request.bytes()),
            Message::Encrypt(_) | Message::Unknown { .. } => {}
        }
    }
}

impl Framing {
    fn decode_body(&mut self, id: u8, mut body: Bytes) -> Result<Message, CodecError> {
        let too_short = || CodecError::new(format!("message {id} is too short"));
        Ok(match id {
            CHOKE => Message::Choke,
            UNCHOKE => Message::Unchoke,
            INTERESTED => Message::Interested,
            NOT_INTERESTED => Message::NotInterested,
            HAVE => Message::Have(body.try_get_u32().map_err(|_| too_short())?),
            BITFIELD => Message::Bitfield(body),
            REQUEST => Message::Request(read_block(body).ok_or_else(too_short)?.bounded()?),
            PIECE => {
                let piece = body.try_get_u32().map_err(|_| too_short())?;
                let begin = body.try_get_u32().map_err(|_| too_short())?;
                Message::Piece {
                    piece,
                    begin,
                    data: body,
                }
            }
            CANCEL => Message::Cancel(read_block(body).ok_or_else(too_short)?),
            PORT => Message::Port(body.try_get_u16().map_err(|_| too_short())?),
            SUGGEST => Message::Suggest(body.try_get_u32().map_err(|_| too_short())?),
            HAVE_ALL => Message::HaveAll,
            HAVE_NONE => Message::HaveNone,
            REJECT => Message::Reject(read_block(body).ok_or_else(too_short)?),
            ALLOWED_FAST => Message::AllowedFast(body.try_get_u32().map_err(|_| too_short())?),
            EXTENDED => match body.try_get_u8().map_err(|_| too_short())? {
                0 => {
                    let handshake = ExtHandshake::decode(&body)?;
                    self.theirs = handshake.ids;
                    Message::ExtHandshake(handshake)
                }
                OUR_METADATA => match Metadata::decode(body)? {
                    Some(metadata) => Message::Metadata(metadata),
                    None => Message::Unknown { id: EXTENDED },
                },
                OUR_PEX => Message::Pex(Pex::decode(&body)?),
                OUR_DONT_HAVE => Message::DontHave(body.try_get_u32().map_err(|_| too_short())?),
                _ => Message::Unknown { id: EXTENDED },
            },
            HASH_REQUEST => Message::HashRequest(HashRequest::read(&mut body).ok_or_else(too_short)?),
            HASHES => {
                let request = HashRequest::read(&mut body).ok_or_else(too_short)?;
                Message::Hashes { request, hashes: body }
            }
            HASH_REJECT => Message::HashReject(HashRequest::read(&mut body).ok_or_else(too_short)?),
            _ => Message::Unknown { id },
        })
    }
}

/// The least and most that a message's length prefix may say; `None` for an id that we do not know.
fn bounds(id: u8) -> Option<(usize, usize)> {
    let exactly = |len| Some((len, len));
    match id {
        CHOKE | UNCHOKE | INTERESTED | NOT_INTERESTED | HAVE_ALL | HAVE_NONE => exactly(1),
        HAVE | SUGGEST | ALLOWED_FAST => exactly(5),
        REQUEST | CANCEL | REJECT => exactly(13),
        PORT => exactly(3),
        BITFIELD => Some((1, 1 + MAX_BITFIELD)),
        PIECE => Some((9, 9 + MAX_BLOCK_LEN as usize)),
        EXTENDED => Some((2, MAX_EXTENDED)),
        HASH_REQUEST | HASH_REJECT => exactly(1 + REQUEST_LEN),
        HASHES => Some((1 + REQUEST_LEN, 1 + REQUEST_LEN + MAX_BODY)),
        _ => None,
    }
}

fn decode_handshake(input: &mut BytesMut) -> Result<Option<Handshake>, CodecError> {
    let known = input.len().min(PROTOCOL.len());
    if input[..known] != PROTOCOL[..known] {
        return Err(CodecError::new("not a BitTorrent handshake"));
    }
    let Some(&bytes) = input.first_chunk::<HANDSHAKE_LEN>() else {
        return Ok(None);
    };
    input.advance(HANDSHAKE_LEN);
    let (mut reserved, mut info_hash, mut peer_id) = ([0; 8], [0; 20], [0; 20]);
    reserved.copy_from_slice(&bytes[20..28]);
    info_hash.copy_from_slice(&bytes[28..48]);
    peer_id.copy_from_slice(&bytes[48..]);
    Ok(Some(Handshake {
        reserved: Reserved(reserved),
        info_hash: InfoHash(info_hash),
        peer_id: PeerId(peer_id),
    }))
}

impl Block {
    /// Refuses a request that nobody has to answer.
    fn bounded(self) -> Result<Self, CodecError> {
        if self.len == 0 || self.len > MAX_BLOCK_LEN {
            return Err(CodecError::new(format!("request for {} bytes", self.len)));
        }
        Ok(self)
    }
}

fn read_block(mut body: Bytes) -> Option<Block> {
    Some(Block {
        piece: body.try_get_u32().ok()?,
        begin: body.try_get_u32().ok()?,
        len: body.try_get_u32().ok()?,
    })
}

fn block_bytes(block: &Block) -> [u8; 12] {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&block.piece.to_be_bytes());
    bytes[4..8].copy_from_slice(&block.begin.to_be_bytes());
    bytes[8..].copy_from_slice(&block.len.to_be_bytes());
    bytes
}

/// The length prefix and the id of a message with `body` bytes. Lengths are ours: far below 4 GiB.
fn put_head(out: &mut SendBuf, id: u8, body: usize) {
    let len = u32::try_from(body + 1).unwrap_or(u32::MAX);
    let [a, b, c, d] = len.to_be_bytes();
    out.put_slice(&[a, b, c, d, id]);
}

fn put(out: &mut SendBuf, id: u8, body: &[u8]) {
    put_head(out, id, body.len());
    out.put_slice(body);
}

fn put_extended(out: &mut SendBuf, id: u8, head: &[u8], data: Bytes) {
    put_head(out, EXTENDED, 1 + head.len() + data.len());
    out.put_slice(&[id]);
    out.put_slice(head);
    out.put_bytes(data);
}
