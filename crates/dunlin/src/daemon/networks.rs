//! Which networks the Bitcoin peer reaches and how: straight, through proxies, through Tor and I2P.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, ensure};
use dunlin_net::{Handle, OnionService, Proxies, SamConfig, TorConfig};
use dunlin_peer::{AsMap, MAX_AS_MAP, NetAddr, NetClass, NetClasses};
use dunlin_relay::Command;

use crate::cli::NetworkArgs;

/// The key of our onion service, in the network's folder.
const ONION_KEY: &str = "onion_v3_private_key";
/// Our key on I2P.
const I2P_KEY: &str = "i2p_private_key";

/// What the options about networks come to.
pub(super) struct Networks {
    pub(super) reachable: NetClasses,
    /// Networks over which own transactions are told in private.
    pub(super) private_broadcast: NetClasses,
    pub(super) proxies: Proxies,
    pub(super) i2p: Option<SamConfig>,
    pub(super) as_map: Option<Arc<AsMap>>,
    /// Addresses under which others reach us, as they become known.
    found: (Sender<NetAddr>, Receiver<NetAddr>),
}

impl Networks {
    /// # Errors
    /// When the options contradict each other, or the AS map cannot be read.
    pub(super) fn new(args: &NetworkArgs, dir: &Path) -> anyhow::Result<Self> {
        let mut proxies = Proxies::default();
        for proxy in args.proxy.iter().filter(|proxy| proxy.class.is_none()) {
            proxies = Proxies::all(proxy.addr);
        }
        for proxy in &args.proxy {
            if let Some(class) = proxy.class {
                proxies.set(class, Some(proxy.addr));
            }
        }
        if let Some(proxy) = args.onion_proxy {
            proxies.set(NetClass::Onion, Some(proxy));
        }
        let found = channel();
        let i2p = args.i2p_sam.map(|addr| SamConfig {
            addr,
            key: dir.join(I2P_KEY),
            accept: !args.no_i2p_accept,
            found: found.0.clone(),
        });
        let can = |class: &NetClass| match class {
            NetClass::Ipv4 | NetClass::Ipv6 => true,
            NetClass::Onion => proxies.of(NetClass::Onion).is_some(),
            NetClass::I2p => i2p.is_some(),
            NetClass::Cjdns => args.cjdns_reachable,
        };
        for class in &args.only_net {
            let how = match class {
                NetClass::Onion => "--proxy or --onion-proxy",
                NetClass::I2p => "--i2p-sam",
                _ => "--cjdns-reachable",
            };
            ensure!(
                can(class),
                "--only-net {class} leaves no way to dial anybody; add {how}"
            );
        }
        let mut reachable: NetClasses = NetClass::ALL.into_iter().filter(can).collect();
        if !args.only_net.is_empty() {
            reachable = reachable.and(args.only_net.iter().copied().collect());
        }
        let mut private_broadcast = NetClasses::default();
        if args.private_broadcast {
            let hidden = |class: &NetClass| reachable.contains(*class) && proxies.of(*class).is_some();
            private_broadcast = NetClass::ALL.into_iter().filter(hidden).collect();
            ensure!(
                private_broadcast != NetClasses::default(),
                "--private-broadcast hides nothing without a proxy to send through; add --proxy, such as Tor's at \
                 127.0.0.1:9050"
            );
        }
        Ok(Self {
            reachable,
            private_broadcast,
            proxies,
            i2p,
            as_map: args.asmap.as_deref().map(as_map).transpose()?,
            found,
        })
    }

    /// Whether names may be looked up: through a proxy nobody else must hear whom we look for, and where the internet
    /// is not used its addresses are of no use.
    pub(super) fn looks_up_names(&self) -> bool {
        let internet = [NetClass::Ipv4, NetClass::Ipv6];
        internet
            .into_iter()
            .any(|class| self.reachable.contains(class) && self.proxies.of(class).is_none())
    }

    /// Where links through our onion service come in: on this machine only.
    pub(super) fn onion_listen(args: &NetworkArgs) -> Option<SocketAddr> {
        args.tor_control.map(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
    }

    /// Sets up the onion service, whose links come in at `target`, and tells the peer its own addresses as they become
    /// known.
    pub(super) fn start(
        self,
        args: &NetworkArgs,
        dir: &Path,
        port: u16,
        target: Option<SocketAddr>,
        reactor: Handle<Command>,
    ) -> anyhow::Result<Option<OnionService>> {
        let (sender, addrs) = self.found;
        std::thread::Builder::new()
            .name("own-addresses".to_owned())
            .spawn(move || {
                while let Ok(addr) = addrs.recv()
                    && reactor.command(Command::LocalAddress(addr))
                {}
            })
            .context("cannot start a thread")?;
        let (Some(control), Some(target)) = (args.tor_control, target) else {
            return Ok(None);
        };
        let service = OnionService::start(TorConfig {
            control,
            password: args.tor_password.clone(),
            key: dir.join(ONION_KEY),
            port,
            target,
            found: sender,
        });
        Ok(Some(service?))
    }
}

fn as_map(path: &Path) -> anyhow::Result<Arc<AsMap>> {
    let read = || -> anyhow::Result<AsMap> {
        let length = std::fs::metadata(path)?.len();
        ensure!(length <= MAX_AS_MAP as u64, "too large for an AS map");
        Ok(AsMap::new(std::fs::read(path)?)?)
    };
    let map = read().with_context(|| format!("--asmap: cannot use {}", path.display()))?;
    Ok(Arc::new(map))
}
