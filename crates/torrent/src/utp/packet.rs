//! uTP's packets: a header of 20 bytes, big-endian, extensions, payload.

use bytes::{Buf, Bytes};

/// Bytes before extensions and payload.
pub(super) const HEADER: usize = 20;
const VERSION: u8 = 1;
/// Selective acknowledgements.
const SACK: u8 = 1;
/// Most bytes of selective acknowledgements that are made and read: they tell of 1,024 packets.
pub(super) const MAX_SACK: usize = 128;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Carries payload.
    Data,
    /// The last of its side.
    Fin,
    /// Only acknowledges.
    State,
    /// The link is gone at once.
    Reset,
    /// The first.
    Syn,
}

/// One datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// What it is for.
    pub kind: Kind,
    /// The receiver's name for the link; in the first packet and some resets, the sender's.
    pub connection: u16,
    /// The sender's clock in microseconds, wrapped.
    pub timestamp: u32,
    /// How long the receiver's last packet took by both clocks, in microseconds, wrapped.
    pub delay: u32,
    /// Bytes that the sender can take in.
    pub window: u32,
    /// The packet's number; the next one's in a packet that only acknowledges.
    pub seq: u16,
    /// The last packet up to which all have come.
    pub ack: u16,
    /// Bit by bit, least significant first: which packets have come, from `ack + 2` on.
    pub sack: Bytes,
    /// Bytes of the stream.
    pub payload: Bytes,
}

impl Packet {
    /// Reads a datagram; `None` when it is no uTP packet.
    pub fn decode(mut bytes: Bytes) -> Option<Self> {
        let first = bytes.try_get_u8().ok()?;
        let kind = match (first >> 4, first & 0x0f) {
            (0, VERSION) => Kind::Data,
            (1, VERSION) => Kind::Fin,
            (2, VERSION) => Kind::State,
            (3, VERSION) => Kind::Reset,
            (4, VERSION) => Kind::Syn,
            _ => return None,
        };
        let mut extension = bytes.try_get_u8().ok()?;
        let mut packet = Self {
            kind,
            connection: bytes.try_get_u16().ok()?,
            timestamp: bytes.try_get_u32().ok()?,
            delay: bytes.try_get_u32().ok()?,
            window: bytes.try_get_u32().ok()?,
            seq: bytes.try_get_u16().ok()?,
            ack: bytes.try_get_u16().ok()?,
            sack: Bytes::new(),
            payload: Bytes::new(),
        };
        while extension != 0 {
            let next = bytes.try_get_u8().ok()?;
            let len = usize::from(bytes.try_get_u8().ok()?);
            if bytes.len() < len {
                return None;
            }
            let body = bytes.split_to(len);
            if extension == SACK {
                packet.sack = body.slice(..len.min(MAX_SACK));
            }
            extension = next;
        }
        packet.payload = bytes;
        Some(packet)
    }

    /// The datagram.
    pub fn encode(&self) -> Bytes {
        let kind = match self.kind {
            Kind::Data => 0,
            Kind::Fin => 1,
            Kind::State => 2,
            Kind::Reset => 3,
            Kind::Syn => 4,
        };
        let sack = &self.sack[..self.sack.len().min(MAX_SACK)];
        let mut bytes = Vec::with_capacity(HEADER + 2 + sack.len() + self.payload.len());
        bytes.push((kind << 4) | VERSION);
        bytes.push(if sack.is_empty() { 0 } else { SACK });
        bytes.extend_from_slice(&self.connection.to_be_bytes());
        bytes.extend_from_slice(&self.timestamp.to_be_bytes());
        bytes.extend_from_slice(&self.delay.to_be_bytes());
        bytes.extend_from_slice(&self.window.to_be_bytes());
        bytes.extend_from_slice(&self.seq.to_be_bytes());
        bytes.extend_from_slice(&self.ack.to_be_bytes());
        if !sack.is_empty() {
            // At most [`MAX_SACK`].
            bytes.extend_from_slice(&[0, sack.len() as u8]);
            bytes.extend_from_slice(sack);
        }
        bytes.extend_from_slice(&self.payload);
        bytes.into()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_and_what_is_cut_short_is_refused() {
        let packet = Packet {
            kind: Kind::Data,
            connection: 0x0102,
            timestamp: 3,
            delay: 4,
            window: 5,
            seq: 6,
            ack: 7,
            sack: Bytes::from_static(&[1, 0, 0, 0x80]),
            payload: Bytes::from_static(b"payload"),
        };
        let bytes = packet.encode();
        assert_eq!(Packet::decode(bytes.clone()), Some(packet));
        for len in 0..HEADER + 6 {
            assert_eq!(Packet::decode(bytes.slice(..len)), None, "{len}");
        }
        // An extension that we do not know is skipped; another version is not ours.
        let mut unknown = bytes.to_vec();
        unknown[1] = 9;
        assert_eq!(Packet::decode(unknown.into()).unwrap().payload, "payload");
        let mut other = bytes.to_vec();
        other[0] = 2;
        assert_eq!(Packet::decode(other.into()), None);
        // A message of the DHT never is one.
        assert_eq!(
            Packet::decode(Bytes::from_static(b"d1:ad2:id20:aaaaaaaaaaaaaaaaaaaae")),
            None
        );
    }
}
