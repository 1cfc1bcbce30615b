//! What the simulated network is like.

use std::time::Duration;

/// The network's qualities. They hold for what is sent and dialled from now on; latency is drawn once for each link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The shortest one-way latency of a link.
    pub min_latency: Duration,
    /// The longest one-way latency of a link.
    pub max_latency: Duration,
    /// Up to this much is added to the latency of each message.
    pub jitter: Duration,
    /// Bytes a second that each direction of a link carries.
    pub bandwidth: u64,
    /// Lost segments in a million. Machines see loss as TCP shows it: as delay, and as a reset when a segment is
    /// lost again and again.
    pub loss: u32,
    /// How long a dial to an address that does not answer takes to fail.
    pub dial_timeout: Duration,
    /// A node's inbound links beyond this are closed at once.
    pub max_inbound: usize,
    /// A machine that has sent more than this many bytes on a link gets `Writable` as soon as the other side has taken
    /// in all but a quarter of it.
    pub send_mark: usize,
    /// Bytes sent on a link and not yet taken in by the other side above which the link is dropped.
    pub send_cap: usize,
    /// How long what a closing link has queued may take.
    pub close_timeout: Duration,
    /// Whether messages travel as bytes, so that the codec's decoder is tested as well; otherwise they are encoded
    /// only to be counted and hashed, and the message itself is moved.
    pub through_codec: bool,
}

impl Default for Conditions {
    /// A decent wide-area network without loss.
    fn default() -> Self {
        Self {
            min_latency: Duration::from_millis(10),
            max_latency: Duration::from_millis(150),
            jitter: Duration::from_millis(10),
            bandwidth: 2_500_000,
            loss: 0,
            dial_timeout: Duration::from_secs(10),
            max_inbound: 128,
            send_mark: 1 << 20,
            send_cap: 48 << 20,
            close_timeout: Duration::from_secs(5),
            through_codec: true,
        }
    }
}
