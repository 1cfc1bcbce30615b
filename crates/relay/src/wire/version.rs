//! The `version` message: who a peer is and what it can do.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::payload::{Malformed, Reader, put_compact};

/// The protocol version that we speak: `feature` (BIP 434) came with it.
pub const PROTOCOL_VERSION: u32 = 70_017;
/// Older peers are turned away, as Bitcoin Core does.
pub const MIN_PEER_VERSION: u32 = 31_800;
/// Longest user agent that is accepted, in bytes.
pub const MAX_USER_AGENT: usize = 256;

/// Service bits of the Bitcoin network.
pub mod services {
    /// Serves the whole chain (`NODE_NETWORK`).
    pub const NETWORK: u64 = 1;
    /// Serves witness data (BIP 144, `NODE_WITNESS`).
    pub const WITNESS: u64 = 1 << 3;
    /// Serves compact block filters (BIP 157, `NODE_COMPACT_FILTERS`).
    pub const COMPACT_FILTERS: u64 = 1 << 6;
    /// Serves at least the last 288 blocks (BIP 159, `NODE_NETWORK_LIMITED`).
    pub const NETWORK_LIMITED: u64 = 1 << 10;
    /// Speaks the encrypted transport (BIP 324, `NODE_P2P_V2`).
    pub const P2P_V2: u64 = 1 << 11;
}

/// The first message of each side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Highest protocol version that the sender speaks.
    pub version: u32,
    /// What the sender offers, see [`services`].
    pub services: u64,
    /// The sender's clock, seconds since the Unix epoch.
    pub timestamp: i64,
    /// The receiver's address as the sender sees it; unspecified when not told.
    pub receiver: SocketAddr,
    /// Services of the receiver as the sender believes them.
    pub receiver_services: u64,
    /// A random number by which a node finds that it dialled itself.
    pub nonce: u64,
    /// The sender's software, BIP 14; printable characters only after decoding.
    pub user_agent: String,
    /// Height of the sender's chain.
    pub start_height: i32,
    /// Whether the sender wants transactions announced (BIP 37).
    pub relay: bool,
}

impl Version {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.services.to_le_bytes());
        out.extend_from_slice(&self.timestamp.to_le_bytes());
        out.extend_from_slice(&self.receiver_services.to_le_bytes());
        put_v1_addr(out, self.receiver);
        out.extend_from_slice(&self.services.to_le_bytes());
        put_v1_addr(out, SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0));
        out.extend_from_slice(&self.nonce.to_le_bytes());
        put_compact(out, self.user_agent.len() as u64);
        out.extend_from_slice(self.user_agent.as_bytes());
        out.extend_from_slice(&self.start_height.to_le_bytes());
        out.push(u8::from(self.relay));
    }

    /// Fields after the receiver's address came with later versions of the protocol and may be absent.
    pub(super) fn decode(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let version = reader.i32()?;
        let mut this = Self {
            // Core keeps the version as a signed number and turns away whatever is below its minimum.
            version: u32::try_from(version).unwrap_or(0),
            services: reader.u64()?,
            timestamp: reader.i64()?.max(0),
            receiver_services: reader.u64()?,
            receiver: v1_addr(reader)?,
            nonce: 1,
            user_agent: String::new(),
            start_height: -1,
            relay: true,
        };
        if !reader.is_empty() {
            reader.take(26)?;
            this.nonce = reader.u64()?;
        }
        if !reader.is_empty() {
            this.user_agent = sanitize(reader.var_bytes(MAX_USER_AGENT, "user agent too long")?);
        }
        if !reader.is_empty() {
            this.start_height = reader.i32()?;
        }
        if !reader.is_empty() {
            this.relay = reader.u8()? != 0;
        }
        Ok(this)
    }
}

/// Keeps what is harmless in a log or on a page: letters, digits and a few signs.
fn sanitize(bytes: &[u8]) -> String {
    const SIGNS: &str = " .,;-_/:?@()";
    bytes
        .iter()
        .map(|&byte| char::from(byte))
        .filter(|c| c.is_ascii_alphanumeric() || SIGNS.contains(*c))
        .collect()
}

/// Sixteen bytes of address and a port, both big-endian; IPv4 is mapped into IPv6.
pub(super) fn put_v1_addr(out: &mut Vec<u8>, addr: SocketAddr) {
    let ip = match addr.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    };
    out.extend_from_slice(&ip.octets());
    out.extend_from_slice(&addr.port().to_be_bytes());
}

pub(super) fn v1_addr(reader: &mut Reader<'_>) -> Result<SocketAddr, Malformed> {
    let ip = Ipv6Addr::from(reader.array::<16>()?);
    let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
    Ok(SocketAddr::new(ip, reader.u16_be()?))
}
