//! The options about Tor, I2P, CJDNS and proxies.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use dunlin_peer::NetClass;

/// A proxy, for all networks or for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProxyArg {
    /// Where it is.
    pub(crate) addr: SocketAddr,
    /// The only network that goes through it.
    pub(crate) class: Option<NetClass>,
}

impl FromStr for ProxyArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (addr, class) = match text.split_once('=') {
            Some((addr, class)) => (addr, Some(class.parse()?)),
            None => (text, None),
        };
        let addr = addr
            .parse()
            .map_err(|_| format!("`{addr}` is no address such as 127.0.0.1:9050"))?;
        if class == Some(NetClass::I2p) {
            return Err("I2P is reached with --i2p-sam, not through a proxy".to_owned());
        }
        Ok(Self { addr, class })
    }
}

#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Bitcoin's networks")]
pub(crate) struct NetworkArgs {
    /// Dial through this SOCKS5 proxy, such as Tor's at 127.0.0.1:9050, each link with a login of its own; with
    /// =NETWORK only addresses of ipv4, ipv6, onion or cjdns (repeatable)
    #[arg(long, value_name = "ADDR[=NETWORK]")]
    pub(crate) proxy: Vec<ProxyArg>,
    /// Dial onion services through this SOCKS5 proxy
    #[arg(long, value_name = "ADDR")]
    pub(crate) onion_proxy: Option<SocketAddr>,
    /// Choose peers on this network only: ipv4, ipv6, onion, i2p or cjdns (repeatable)
    #[arg(long, value_name = "NETWORK")]
    pub(crate) only_net: Vec<NetClass>,
    /// Let Tor listen for us: its control port, such as 127.0.0.1:9051; the service's key stays in the data directory
    #[arg(long, value_name = "ADDR")]
    pub(crate) tor_control: Option<SocketAddr>,
    /// The password of Tor's control port; without it, Tor's cookie is used
    #[arg(long, value_name = "PASSWORD", requires = "tor_control")]
    pub(crate) tor_password: Option<String>,
    /// Take part in I2P: the SAM bridge of its router, such as 127.0.0.1:7656; our key stays in the data directory
    #[arg(long, value_name = "ADDR")]
    pub(crate) i2p_sam: Option<SocketAddr>,
    /// Dial peers on I2P, but take none in
    #[arg(long, requires = "i2p_sam")]
    pub(crate) no_i2p_accept: bool,
    /// Addresses of fc00::/8 are those of CJDNS, which this machine is on
    #[arg(long)]
    pub(crate) cjdns_reachable: bool,
    /// Tell own transactions to a few peers over short links of their own through the proxies, and to nobody else until
    /// they come back from others
    #[arg(long)]
    pub(crate) private_broadcast: bool,
    /// Never begin with the addresses that the program brings along
    #[arg(long)]
    pub(crate) no_fixed_seeds: bool,
    /// Spread links over the autonomous systems that this map names (Bitcoin Core's asmap format)
    #[arg(long, value_name = "FILE")]
    pub(crate) asmap: Option<PathBuf>,
}
