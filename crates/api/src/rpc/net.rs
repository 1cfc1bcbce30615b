//! Connections: `getpeerinfo`, `addnode`, bans and traffic.

use std::net::{IpAddr, ToSocketAddrs};

use dunlin_peer::{Direction, Host, LinkId, NetAddr, NetClass, Now};
use serde_json::{Map, Value, json};

use super::error::{
    INVALID_IP_OR_SUBNET, INVALID_PARAMETER, INVALID_PARAMS, MISC_ERROR, NODE_ALREADY_ADDED, NODE_NOT_ADDED,
    NODE_NOT_CONNECTED, RpcError,
};
use super::json::{btc, btc_u, float};
use super::method::{Answer, Call};
use super::{help, unix_now, with_pool};
use crate::backend::{AddKind, BackendError, Kind, PeerInfo, PeerRow, Subnet, Transport, Which};

/// The version of Core whose interface this one follows, as `getnetworkinfo` tells it to tools that ask.
pub(crate) const CORE_VERSION: u32 = 319_900;
/// How long a ban lasts when nothing else is said.
const DEFAULT_BAN_SECS: u64 = 24 * 60 * 60;

pub(crate) async fn getconnectioncount(call: Call) -> Answer {
    Ok(call.bitcoin()?.peers().await?.len().into())
}

pub(crate) async fn getpeerinfo(call: Call) -> Answer {
    let peers = call.bitcoin()?.peers().await?;
    Ok(peers.iter().map(peer_json).collect::<Vec<_>>().into())
}

fn peer_json(row: &PeerRow) -> Value {
    let info = &row.info;
    let inbound = info.direction == Direction::Inbound;
    let when = |at: Option<Now>| at.map_or(0, Now::unix_secs);
    let mut map = Map::new();
    map.insert("id".into(), info.link.0.into());
    map.insert("addr".into(), info.addr.to_string().into());
    if let Some(bind) = info.bind {
        map.insert("addrbind".into(), bind.to_string().into());
    }
    map.insert("network".into(), network_of(info).into());
    if let Some(system) = info.system {
        map.insert("mapped_as".into(), system.into());
    }
    map.insert("services".into(), format!("{:016x}", info.services).into());
    map.insert("servicesnames".into(), service_names(info.services));
    map.insert("relaytxes".into(), info.relay_tx.into());
    map.insert("last_inv_sequence".into(), 0.into());
    map.insert("inv_to_send".into(), 0.into());
    map.insert("lastsend".into(), info.last_send.unix_secs().into());
    map.insert("lastrecv".into(), info.last_recv.unix_secs().into());
    map.insert("last_transaction".into(), when(info.last_tx).into());
    map.insert("last_block".into(), when(info.last_block).into());
    map.insert("bytessent".into(), row.bytes_out.into());
    map.insert("bytesrecv".into(), row.bytes_in.into());
    map.insert("conntime".into(), info.connected_at.unix_secs().into());
    map.insert("timeoffset".into(), info.time_offset.into());
    for (name, time) in [
        ("pingtime", info.ping),
        ("minping", info.min_ping),
        ("pingwait", info.ping_wait),
    ] {
        if let Some(time) = time {
            map.insert(name.into(), float(time.as_secs_f64()));
        }
    }
    map.insert("version".into(), info.version.into());
    map.insert("subver".into(), sanitize(&info.user_agent).into());
    map.insert("inbound".into(), inbound.into());
    map.insert("bip152_hb_to".into(), info.compact_to.into());
    map.insert("bip152_hb_from".into(), info.compact_from.into());
    map.insert("presynced_headers".into(), (-1).into());
    map.insert("synced_headers".into(), info.synced_headers.into());
    map.insert("synced_blocks".into(), info.synced_blocks.into());
    map.insert("inflight".into(), info.inflight.clone().into());
    map.insert("addr_relay_enabled".into(), info.addr_relay.into());
    map.insert("addr_processed".into(), info.addr_processed.into());
    map.insert("addr_rate_limited".into(), info.addr_rate_limited.into());
    map.insert("permissions".into(), json!([]));
    map.insert("minfeefilter".into(), btc(info.fee_filter));
    map.insert("bytessent_per_msg".into(), json!({}));
    map.insert("bytesrecv_per_msg".into(), json!({}));
    let kind = match info.kind {
        Kind::Inbound => "inbound",
        Kind::Manual => "manual",
        Kind::Automatic => "outbound-full-relay",
        Kind::BlockRelay => "block-relay-only",
        Kind::Feeler => "feeler",
        Kind::Private => "private-broadcast",
    };
    map.insert("connection_type".into(), kind.into());
    let (transport, session_id) = match info.transport {
        Transport::Detecting => ("detecting", String::new()),
        Transport::V1 => ("v1", String::new()),
        Transport::V2(session_id) => ("v2", hex::encode(session_id)),
    };
    map.insert("transport_protocol_type".into(), transport.into());
    map.insert("session_id".into(), session_id.into());
    Value::Object(map)
}

/// Text of a peer with only the characters that are safe everywhere.
pub(crate) fn sanitize(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || " .,;-_/:?@()".contains(*c))
        .take(256)
        .collect()
}

/// Core's name for the network that a link goes through.
fn network_of(info: &PeerInfo) -> &'static str {
    match (info.network, info.addr.host.ip()) {
        (NetClass::Ipv4 | NetClass::Ipv6, Some(ip)) => network_name(ip),
        (network, _) => network.name(),
    }
}

/// Core's name for the network that an address belongs to.
pub(crate) fn network_name(ip: IpAddr) -> &'static str {
    let routable = match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            !(ip.is_unspecified()
                || ip.is_loopback()
                || ip.is_private()
                || ip.is_link_local()
                || ip.is_broadcast()
                || ip.is_documentation()
                || a == 0
                || (a == 100 && b & 0xc0 == 64)
                || (a == 198 && b & 0xfe == 18))
        }
        IpAddr::V6(ip) => {
            let [first, second, ..] = ip.segments();
            !(ip.is_unspecified()
                || ip.is_loopback()
                || first & 0xfe00 == 0xfc00
                || first & 0xffc0 == 0xfe80
                || (first == 0x2001 && second == 0x0db8)
                || (first == 0x2001 && second & 0xfff0 == 0x0010))
        }
    };
    match ip.to_canonical() {
        _ if !routable => "not_publicly_routable",
        IpAddr::V4(_) => "ipv4",
        IpAddr::V6(_) => "ipv6",
    }
}

fn service_names(services: u64) -> Value {
    let name = |bit: u32| match bit {
        0 => "NETWORK".to_owned(),
        2 => "BLOOM".to_owned(),
        3 => "WITNESS".to_owned(),
        6 => "COMPACT_FILTERS".to_owned(),
        10 => "NETWORK_LIMITED".to_owned(),
        11 => "P2P_V2".to_owned(),
        _ => format!("UNKNOWN[2^{bit}]"),
    };
    (0..64)
        .filter(|bit| services >> bit & 1 == 1)
        .map(name)
        .collect::<Vec<_>>()
        .into()
}

pub(crate) async fn getnetworkinfo(call: Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    let peers = bitcoin.peers().await?;
    let inbound = peers
        .iter()
        .filter(|peer| peer.info.direction == Direction::Inbound)
        .count();
    let services = bitcoin.services();
    let (relay_fee, incremental_fee) = with_pool(&*bitcoin, |pool| {
        let info = pool.info();
        (info.min_relay_feerate, info.incremental_feerate)
    });
    let ways = bitcoin.ways();
    let network = |class: NetClass| {
        let reachable = ways.reachable.contains(class);
        let proxy = ways.proxies.iter().find(|(of, _)| *of == class);
        json!({
            "name": class.name(), "limited": !reachable, "reachable": reachable,
            "proxy": proxy.map_or_else(String::new, |(_, proxy)| proxy.to_string()),
            "proxy_randomize_credentials": proxy.is_some(),
        })
    };
    let networks: Vec<Value> = NetClass::ALL.into_iter().map(network).collect();
    let own = bitcoin.own_addresses().await?;
    let own = own
        .iter()
        .map(|addr| json!({ "address": addr.host.to_string(), "port": addr.port, "score": 4 }));
    Ok(json!({
        "version": CORE_VERSION,
        "subversion": call.shared.node.user_agent,
        "protocolversion": dunlin_relay::PROTOCOL_VERSION,
        "localservices": format!("{services:016x}"),
        "localservicesnames": service_names(services),
        "localrelay": bitcoin.relays_txs(),
        "timeoffset": 0,
        "networkactive": true,
        "connections": peers.len(),
        "connections_in": inbound,
        "connections_out": peers.len() - inbound,
        "networks": networks,
        "relayfee": btc_u(relay_fee),
        "incrementalfee": btc_u(incremental_fee),
        "localaddresses": own.collect::<Vec<_>>(),
        "warnings": [],
    }))
}

pub(crate) async fn getnettotals(call: Call) -> Answer {
    let totals = call.bitcoin()?.net_totals();
    let millis = super::since_epoch().as_millis();
    Ok(json!({
        "totalbytesrecv": totals.bytes_in,
        "totalbytessent": totals.bytes_out,
        "timemillis": u64::try_from(millis).unwrap_or(u64::MAX),
        "uploadtarget": {
            "timeframe": 86_400,
            "target": 0,
            "target_reached": false,
            "serve_historical_blocks": true,
            "bytes_left_in_cycle": 0,
            "time_left_in_cycle": 0,
        },
    }))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`, resolved; the network's own port where none is given.
async fn resolve(text: &str, default_port: u16) -> Result<NetAddr, RpcError> {
    if let Ok(addr) = text.parse::<NetAddr>() {
        return Ok(addr);
    }
    if let Ok(host) = text.trim_start_matches('[').trim_end_matches(']').parse::<Host>() {
        return Ok(NetAddr::at_default_port(host, default_port));
    }
    let name = if text.contains(':') {
        text.to_owned()
    } else {
        format!("{text}:{default_port}")
    };
    let found =
        tokio::task::spawn_blocking(move || name.to_socket_addrs().ok().and_then(|mut addrs| addrs.next())).await;
    let unknown = || {
        RpcError::new(
            INVALID_PARAMETER,
            format!("Error: {text} is no address and no name that resolves"),
        )
    };
    found.ok().flatten().map(NetAddr::from).ok_or_else(unknown)
}

pub(crate) async fn addnode(call: Call) -> Answer {
    let kind = match call.str(1)? {
        "add" => AddKind::Add,
        "onetry" => AddKind::Onetry,
        "remove" => AddKind::Remove,
        _ => return Err(RpcError::new(MISC_ERROR, help::of(call.method))),
    };
    if call.bool_or(2, false)? {
        return Err(RpcError::new(
            INVALID_PARAMETER,
            "Error: v2transport requested but not enabled (see -v2transport)",
        ));
    }
    let bitcoin = call.bitcoin()?;
    let port = bitcoin.view().params().default_port;
    let addr = resolve(call.str(0)?, port).await?;
    match bitcoin.add_node(addr, kind).await {
        Ok(()) => Ok(Value::Null),
        Err(BackendError::AlreadyExists(_)) => Err(RpcError::new(NODE_ALREADY_ADDED, "Error: Node already added")),
        Err(BackendError::NotFound(_)) => {
            let text = "Error: Node could not be removed. It has not been added previously.";
            Err(RpcError::new(NODE_NOT_ADDED, text))
        }
        Err(other) => Err(other.into()),
    }
}

pub(crate) async fn disconnectnode(call: Call) -> Answer {
    let address = call.opt_str(0)?;
    let not_found = || RpcError::new(NODE_NOT_CONNECTED, "Node not found in connected nodes");
    let which = match (address, call.given(1)) {
        (Some(address), false) => Which::Addr(address.parse().map_err(|_| not_found())?),
        (None | Some(""), true) => Which::Link(LinkId(u64::try_from(call.int::<i64>(1)?).map_err(|_| not_found())?)),
        _ => {
            return Err(RpcError::new(
                INVALID_PARAMS,
                "Only one of address and nodeid should be provided.",
            ));
        }
    };
    match call.bitcoin()?.disconnect(which).await {
        Ok(()) => Ok(Value::Null),
        Err(BackendError::NotFound(_)) => Err(not_found()),
        Err(other) => Err(other.into()),
    }
}

/// An address range in CIDR terms or with an IPv4 netmask.
fn subnet(text: &str) -> Option<Subnet> {
    if let Some((addr, mask)) = text.split_once('/')
        && let Ok(IpAddr::V4(mask)) = mask.parse::<IpAddr>()
    {
        let bits = u32::from(mask);
        let prefix = bits.leading_ones();
        if prefix + bits.trailing_zeros() < 32 {
            return None;
        }
        return Subnet::new(
            addr.parse::<std::net::Ipv4Addr>().ok()?.into(),
            u8::try_from(prefix).ok()?,
        );
    }
    text.parse().ok()
}

pub(crate) async fn setban(call: Call) -> Answer {
    let add = match call.str(1)? {
        "add" => true,
        "remove" => false,
        _ => return Err(RpcError::new(MISC_ERROR, help::of(call.method))),
    };
    let subnet = subnet(call.str(0)?).ok_or_else(|| RpcError::new(INVALID_IP_OR_SUBNET, "Error: Invalid IP/Subnet"))?;
    let bitcoin = call.bitcoin()?;
    if !add {
        return match bitcoin.unban(subnet).await {
            Ok(()) => Ok(Value::Null),
            Err(BackendError::NotFound(_)) => {
                let text = "Error: Unban failed. Requested address/subnet was not previously manually banned.";
                Err(RpcError::new(INVALID_IP_OR_SUBNET, text))
            }
            Err(other) => Err(other.into()),
        };
    }
    if bitcoin
        .banned()
        .await?
        .iter()
        .any(|ban| ban.subnet == subnet && !ban.discouraged)
    {
        return Err(RpcError::new(NODE_ALREADY_ADDED, "Error: IP/Subnet already banned"));
    }
    let time: i64 = call.int_or(2, 0)?;
    let seconds = if call.bool_or(3, false)? {
        let past = || RpcError::new(INVALID_PARAMETER, "Error: Absolute timestamp is in the past");
        let left = u64::try_from(time).ok().and_then(|until| until.checked_sub(unix_now()));
        left.ok_or_else(past)?
    } else {
        u64::try_from(time)
            .ok()
            .filter(|seconds| *seconds > 0)
            .unwrap_or(DEFAULT_BAN_SECS)
    };
    bitcoin.ban(subnet, seconds).await?;
    Ok(Value::Null)
}

pub(crate) async fn listbanned(call: Call) -> Answer {
    let now = unix_now();
    let bans = call.bitcoin()?.banned().await?;
    let row = |ban: &crate::backend::Ban| {
        json!({
            "address": ban.subnet.to_string(),
            "ban_created": ban.created,
            "banned_until": ban.until,
            "ban_duration": ban.until.saturating_sub(ban.created),
            "time_remaining": ban.until.saturating_sub(now),
        })
    };
    Ok(bans
        .iter()
        .filter(|ban| !ban.discouraged)
        .map(row)
        .collect::<Vec<_>>()
        .into())
}

pub(crate) async fn clearbanned(call: Call) -> Answer {
    let bitcoin = call.bitcoin()?;
    for ban in bitcoin.banned().await?.into_iter().filter(|ban| !ban.discouraged) {
        match bitcoin.unban(ban.subnet).await {
            Ok(()) | Err(BackendError::NotFound(_)) => {}
            Err(other) => return Err(other.into()),
        }
    }
    Ok(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_core_reads_them() {
        let cases = [
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("192.0.2.7/24", Some("192.0.2.0/24")),
            ("192.0.2.7/255.255.0.0", Some("192.0.0.0/16")),
            ("192.0.2.7/0.0.0.0", Some("0.0.0.0/0")),
            ("2001:db8::1/32", Some("2001:db8::/32")),
            ("192.0.2.7/33", None),
            ("192.0.2.7/255.0.255.0", None),
            ("host.example", None),
            ("", None),
        ];
        for (text, want) in cases {
            assert_eq!(subnet(text).map(|subnet| subnet.to_string()).as_deref(), want, "{text}");
        }
    }

    #[test]
    fn names_of_networks_services_and_peers() {
        let name = |ip: &str| ip.parse().map(network_name);
        assert_eq!(name("127.0.0.1"), Ok("not_publicly_routable"));
        assert_eq!(name("10.1.2.3"), Ok("not_publicly_routable"));
        assert_eq!(name("8.8.8.8"), Ok("ipv4"));
        assert_eq!(name("::ffff:8.8.8.8"), Ok("ipv4"));
        assert_eq!(name("2a00::1"), Ok("ipv6"));
        assert_eq!(
            service_names(0x409 | 1 << 40),
            json!(["NETWORK", "WITNESS", "NETWORK_LIMITED", "UNKNOWN[2^40]"])
        );
        assert_eq!(sanitize("/Sat\u{1b}[31m<b>oshi:31.0/\n"), "/Sat31mboshi:31.0/");
    }
}
