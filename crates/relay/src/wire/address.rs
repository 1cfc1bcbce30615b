//! Entries of `addr` and `addrv2` (BIP 155) messages.

use dunlin_peer::{Host, NetAddr};

use super::payload::{Malformed, Reader, put_compact};
use super::version::{put_v1_addr, v1_addr};

/// Longest address of any network, BIP 155.
const MAX_ADDRV2_LEN: usize = 512;

/// An address that a peer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr {
    /// When it was last heard of, seconds since the Unix epoch.
    pub time: u32,
    /// What it offers, see [`services`](super::version::services).
    pub services: u64,
    /// Its host.
    pub host: Host,
    /// Its port.
    pub port: u16,
}

impl PeerAddr {
    /// The address alone.
    pub fn addr(&self) -> NetAddr {
        NetAddr {
            host: self.host,
            port: self.port,
        }
    }

    /// An `addr` entry; `None` for hosts that the old form cannot carry.
    pub(super) fn encode_v1(&self, out: &mut Vec<u8>) -> Option<()> {
        let addr = self.addr().socket_addr()?;
        out.extend_from_slice(&self.time.to_le_bytes());
        out.extend_from_slice(&self.services.to_le_bytes());
        put_v1_addr(out, addr);
        Some(())
    }

    pub(super) fn decode_v1(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let time = reader.u32()?;
        let services = reader.u64()?;
        let addr = v1_addr(reader)?;
        Ok(Self {
            time,
            services,
            host: Host::Ip(addr.ip()),
            port: addr.port(),
        })
    }

    pub(super) fn encode_v2(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.time.to_le_bytes());
        put_compact(out, self.services);
        self.host.with_bytes(|network, bytes| {
            out.push(network);
            put_compact(out, bytes.len() as u64);
            out.extend_from_slice(bytes);
        });
        out.extend_from_slice(&self.port.to_be_bytes());
    }

    /// `None` for a network that we do not know, as BIP 155 asks; a known network with a wrong length is malformed.
    pub(super) fn decode_v2(reader: &mut Reader<'_>) -> Result<Option<Self>, Malformed> {
        let time = reader.u32()?;
        let services = reader.compact_u64()?;
        let network = reader.u8()?;
        let bytes = reader.var_bytes(MAX_ADDRV2_LEN, "addrv2 address too long")?;
        let port = reader.u16_be()?;
        let host = Host::from_bytes(network, bytes).map_err(|_| Malformed("addrv2 address of a wrong length"))?;
        Ok(host.map(|host| Self {
            time,
            services,
            host,
            port,
        }))
    }
}
