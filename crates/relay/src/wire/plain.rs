//! The v1 envelope: network magic, command, length, checksum.
//!
//! A wrong magic or a length beyond the bound ends the link; a wrong checksum or a command that is not plain text
//! drops the message and goes on, as Bitcoin Core does.

use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bytes::BytesMut;
use dunlin_peer::{CodecError, SendBuf};

use super::message::Message;

/// Most bytes of a payload, `MAX_PROTOCOL_MESSAGE_LENGTH` of Core.
pub const MAX_PAYLOAD: usize = 4_000_000;
/// Bytes before the payload.
pub const HEADER_LEN: usize = 24;

/// Takes the next message off the front of `input`.
pub(super) fn decode(magic: [u8; 4], input: &mut BytesMut) -> Result<Option<Message>, CodecError> {
    loop {
        let Some(head) = input.first_chunk::<HEADER_LEN>() else {
            // Not even the magic may differ: a peer that speaks something else is told apart at once.
            let seen = input.len().min(4);
            if input[..seen] != magic[..seen] {
                return Err(CodecError::new("wrong network magic"));
            }
            return Ok(None);
        };
        let (theirs, rest) = head.split_at(4);
        let (command, rest) = rest.split_at(12);
        let (len, checksum) = rest.split_at(4);
        if theirs != magic {
            return Err(CodecError::new("wrong network magic"));
        }
        // The split leaves exactly four bytes.
        let len = u32::from_le_bytes([len[0], len[1], len[2], len[3]]) as usize;
        if len > MAX_PAYLOAD {
            return Err(CodecError::new(format!("payload of {len} bytes is too large")));
        }
        if input.len() < HEADER_LEN + len {
            return Ok(None);
        }
        let command = command_text(command);
        let checksum = [checksum[0], checksum[1], checksum[2], checksum[3]];
        let payload = input.split_to(HEADER_LEN + len).freeze().slice(HEADER_LEN..);
        match command {
            Some(command) if sum(&[&payload]) == checksum => return Ok(Some(Message::decode(&command, payload))),
            _ => continue,
        }
    }
}

/// How many bytes the message at the front of `input` still needs; 0 while its length is unknown.
pub(super) fn missing(input: &BytesMut) -> usize {
    let Some(&[.., a, b, c, d, _, _, _, _]) = input.first_chunk::<HEADER_LEN>() else {
        return 0;
    };
    let len = u32::from_le_bytes([a, b, c, d]) as usize;
    HEADER_LEN.saturating_add(len).saturating_sub(input.len())
}

/// Appends the message in its envelope; bulk payload by reference.
pub(super) fn encode(magic: [u8; 4], msg: &Message, out: &mut SendBuf) {
    let (small, bulk) = msg.encode();
    let mut head = [0; HEADER_LEN];
    head[..4].copy_from_slice(&magic);
    let command = msg.command().as_bytes();
    let take = command.len().min(12);
    head[4..4 + take].copy_from_slice(&command[..take]);
    // No message that we build comes near four gigabytes.
    let len = u32::try_from(small.len() + bulk.len()).unwrap_or(u32::MAX);
    head[16..20].copy_from_slice(&len.to_le_bytes());
    head[20..].copy_from_slice(&sum(&[&small, &bulk]));
    out.put_slice(&head);
    out.put_slice(&small);
    out.put_bytes(bulk);
}

/// The first four bytes of the double SHA-256.
pub(super) fn sum(parts: &[&[u8]]) -> [u8; 4] {
    let mut engine = sha256d::Hash::engine();
    parts.iter().for_each(|part| engine.input(part));
    let [a, b, c, d, ..] = sha256d::Hash::from_engine(engine).to_byte_array();
    [a, b, c, d]
}

/// Printable characters, then nothing but zeros.
pub(super) fn command_text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len());
    let (text, padding) = bytes.split_at(end);
    let sound = text.iter().all(|byte| (0x20..0x7f).contains(byte)) && padding.iter().all(|&byte| byte == 0);
    sound.then(|| text.iter().map(|&byte| char::from(byte)).collect())
}
