//! Core's options about proxies, Tor, I2P and CJDNS, as ours.

use anyhow::ensure;

use super::bitcoind::resolve;
use super::settings::Settings;

/// Where Core looks when no port is named.
const TOR_SOCKS: u16 = 9050;
const TOR_CONTROL: u16 = 9051;
const I2P_SAM: u16 = 7656;

/// Our options and their values.
pub(super) fn options(settings: &Settings) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut said = Vec::new();
    let off = |value: &str| value.is_empty() || value == "0";
    for proxy in settings.list("proxy").iter().filter(|proxy| !off(proxy)) {
        let (addr, network) = match proxy.split_once('=') {
            Some((addr, network)) => (addr, format!("={network}")),
            None => (proxy.as_str(), String::new()),
        };
        said.push(("proxy", format!("{}{network}", resolve(addr, TOR_SOCKS)?)));
    }
    let place = |name: &str, port: u16| -> anyhow::Result<Option<String>> {
        let given = settings.text(name).filter(|value| !off(value));
        given.map(|value| Ok(resolve(&value, port)?.to_string())).transpose()
    };
    if let Some(addr) = place("onion", TOR_SOCKS)? {
        said.push(("onion-proxy", addr));
    }
    for network in settings.list("onlynet") {
        said.push(("only-net", network));
    }
    if settings.switch("listenonion") != Some(false)
        && let Some(addr) = place("torcontrol", TOR_CONTROL)?
    {
        said.push(("tor-control", addr));
        said.extend(settings.text("torpassword").map(|password| ("tor-password", password)));
    }
    if let Some(addr) = place("i2psam", I2P_SAM)? {
        said.push(("i2p-sam", addr));
    }
    if let Some(map) = settings.text("asmap").filter(|map| map != "0") {
        ensure!(
            !map.is_empty() && map != "1",
            "-asmap needs a file in this version of Dunlin: no map is built in."
        );
        said.push(("asmap", settings.data_dir.join(map).display().to_string()));
    }
    Ok(said)
}
