//! What `bitcoin-cli` puts together by itself: `-getinfo`, `-netinfo`, `-addrinfo` and `-generate`.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use dunlin_chain::Network;
use serde_json::{Map, Value, json};

use super::settings::Settings;
use crate::client::{CallError, Client};

/// The most detail of `-netinfo`.
const MAX_LEVEL: u8 = 4;
/// Core's names of networks, with the short ones; the first and the last can be reached by nobody from elsewhere.
const NETWORKS: [(&str, &str); 7] = [
    ("not_publicly_routable", "npr"),
    ("ipv4", "ipv4"),
    ("ipv6", "ipv6"),
    ("onion", "onion"),
    ("i2p", "i2p"),
    ("cjdns", "cjdns"),
    ("internal", "int"),
];

/// One of the reports, with what the words of the command line say of it.
#[derive(Debug)]
pub(super) enum Report {
    /// How the daemon is doing.
    Info,
    /// Its peers: how much of each, and whether only those that it chose itself.
    Peers { level: u8, outbound_only: bool },
    /// What `-netinfo` can do.
    PeersHelp,
    /// How many addresses it knows.
    Addresses,
    /// Blocks for an address of its own wallet.
    Generate { count: Value, tries: Option<Value> },
}

impl Report {
    /// The report that the settings ask for.
    ///
    /// # Errors
    /// When its arguments make no sense.
    pub(super) fn asked(settings: &Settings, words: &[String]) -> anyhow::Result<Option<Self>> {
        if settings.is_on("getinfo") {
            ensure!(words.is_empty(), "-getinfo takes no arguments");
            return Ok(Some(Self::Info));
        }
        if settings.is_on("netinfo") {
            return peers(words).map(Some);
        }
        if settings.is_on("generate") {
            return generate(words).map(Some);
        }
        if settings.is_on("addrinfo") {
            ensure!(words.is_empty(), "-addrinfo takes no arguments");
            return Ok(Some(Self::Addresses));
        }
        Ok(None)
    }

    /// Asks the daemon for what it takes.
    pub(super) fn make(&self, client: &Client, network: Network) -> Result<Value, CallError> {
        match self {
            Self::Info => info(client),
            Self::Peers { level, outbound_only } => net(client, network, *level, *outbound_only),
            Self::PeersHelp => Ok(PEERS_HELP.into()),
            Self::Addresses => addresses(client),
            Self::Generate { count, tries } => {
                let address = client.ask("getnewaddress", json!([]))?;
                let mut params = vec![count.clone(), address.clone()];
                params.extend(tries.clone());
                let blocks = client.ask("generatetoaddress", params.into())?;
                Ok(json!({ "address": address, "blocks": blocks }))
            }
        }
    }
}

fn peers(words: &[String]) -> anyhow::Result<Report> {
    const MORE: &str = "For more information, run: bitcoin-cli -netinfo help";
    let Some(level) = words.first() else {
        return Ok(Report::Peers {
            level: 0,
            outbound_only: false,
        });
    };
    if matches!(level.as_str(), "h" | "help") {
        return Ok(Report::PeersHelp);
    }
    let number: u8 = level
        .parse()
        .ok()
        .with_context(|| format!("invalid -netinfo level argument: {level}\n{MORE}"))?;
    let outbound_only = match words.get(1).map(String::as_str) {
        None => false,
        Some("o" | "outonly") if number > 0 => true,
        Some(other) if number > 0 => bail!("invalid -netinfo outonly argument: {other}\n{MORE}"),
        Some(other) => bail!(
            "invalid -netinfo outonly argument: {other}\nThe outonly argument is only valid for a level greater than 0 \
             (the first argument). {MORE}"
        ),
    };
    Ok(Report::Peers {
        level: number.min(MAX_LEVEL),
        outbound_only,
    })
}

fn generate(words: &[String]) -> anyhow::Result<Report> {
    ensure!(
        words.len() <= 2,
        "too many arguments (maximum 2 for nblocks and maxtries)"
    );
    let number = |word: &String| serde_json::from_str(word).with_context(|| format!("Error parsing JSON: {word}"));
    let count = words.first().map_or(Ok(json!(1)), number)?;
    ensure!(
        count != json!(0),
        "the first argument (number of blocks to generate, default: 1) must be an integer value greater than zero"
    );
    let tries = words.get(1).map(number).transpose()?;
    Ok(Report::Generate { count, tries })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn info(client: &Client) -> Result<Value, CallError> {
    let network = client.ask("getnetworkinfo", json!([]))?;
    let chain = client.ask("getblockchaininfo", json!([]))?;
    let progress = chain["verificationprogress"].as_f64().unwrap_or(0.0);
    let bar = if (0.0..0.99).contains(&progress) {
        // A mark for each twentieth.
        let done = (progress * 20.0).ceil() as usize;
        let left = ((1.0 - progress) * 20.0).ceil() as usize;
        format!("{}{} ", "\u{2592}".repeat(done), "\u{2591}".repeat(left))
    } else {
        String::new()
    };
    let mut proxies: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in network["networks"].as_array().into_iter().flatten() {
        let (proxy, name) = (text(&row["proxy"]), text(&row["name"]));
        match proxies.iter_mut().find(|(known, _)| *known == proxy) {
            _ if proxy.is_empty() => {}
            Some((_, names)) => names.push(name),
            None => proxies.push((proxy, vec![name])),
        }
    }
    let proxies = proxies
        .iter()
        .map(|(proxy, names)| format!("{proxy} ({})", names.join(", ")));
    let or = |parts: Vec<String>, between: &str, nothing: &str| match parts.is_empty() {
        true => nothing.to_owned(),
        false => parts.join(between),
    };
    let warnings = network["warnings"].as_array().into_iter().flatten();
    let warnings = warnings.map(|warning| text(warning).to_owned()).collect();
    Ok(Value::String(format!(
        "Chain: {}\nBlocks: {}\nHeaders: {}\nVerification progress: {bar}{:.4}%\nDifficulty: {}\n\nNetwork: in {}, out {}, \
         total {}\nVersion: {}\nTime offset (s): {}\nProxies: {}\nMin tx relay fee rate (BTC/kvB): {}\n\nWarnings: {}",
        text(&chain["chain"]),
        chain["blocks"],
        chain["headers"],
        progress * 100.0,
        chain["difficulty"],
        network["connections_in"],
        network["connections_out"],
        network["connections"],
        network["version"],
        network["timeoffset"],
        or(proxies.collect(), ", ", "n/a"),
        network["relayfee"],
        or(warnings, "\n", "(none)"),
    )))
}

fn addresses(client: &Client) -> Result<Value, CallError> {
    let tables = client.ask("getaddrmaninfo", json!([]))?;
    let mut known = Map::new();
    for (network, counts) in tables.as_object().into_iter().flatten() {
        let name = if network == "all_networks" { "total" } else { network };
        known.insert(name.to_owned(), counts["total"].clone());
    }
    Ok(json!({ "addresses_known": known }))
}

/// The services of a peer, one letter each.
fn letters(services: &Value) -> String {
    let names = services.as_array().into_iter().flatten().map(text);
    let letter = |name: &str| match name {
        "NETWORK_LIMITED" => Some('l'),
        "P2P_V2" => Some('2'),
        other => other.chars().next().map(|first| first.to_ascii_lowercase()),
    };
    names.filter_map(letter).collect()
}

/// A row of the list of peers.
struct Row {
    outbound: bool,
    shortest: f64,
    cells: Vec<String>,
    address: String,
    version: String,
}

/// What is shown of a time in the past, in units of `unit` seconds; nothing when it never was.
fn ago(now: u64, then: &Value, unit: u64) -> Option<String> {
    let then = then.as_u64().filter(|then| *then > 0)?;
    Some(
        (i128::from(now) - i128::from(then))
            .checked_div(i128::from(unit))?
            .to_string(),
    )
}

fn millis(seconds: &Value) -> String {
    let Some(seconds) = seconds.as_f64() else {
        return String::new();
    };
    let millis = (seconds * 1_000.0).round();
    if millis > 999_999.0 {
        "-".to_owned()
    } else {
        millis.to_string()
    }
}

fn row(peer: &Value, now: u64) -> Row {
    let flag = |name: &str| peer[name].as_bool().unwrap_or(false);
    let count = |name: &str| {
        peer[name]
            .as_u64()
            .filter(|count| *count > 0)
            .map(|count| count.to_string())
    };
    let kind = match text(&peer["connection_type"]) {
        "outbound-full-relay" => "full",
        "block-relay-only" => "block",
        "addr-fetch" => "addr",
        "private-broadcast" => "priv",
        kind @ ("manual" | "feeler") => kind,
        _ => "",
    };
    let short = NETWORKS.iter().find(|(name, _)| *name == text(&peer["network"]));
    let transport = text(&peer["transport_protocol_type"]);
    let outbound = !flag("inbound");
    let mark = |on: bool, mark: &str| if on { mark.to_owned() } else { " ".to_owned() };
    let cells = vec![
        if outbound { "out" } else { "in" }.to_owned(),
        kind.to_owned(),
        short.map_or("", |(_, short)| short).to_owned(),
        letters(&peer["servicesnames"]),
        transport.strip_prefix('v').unwrap_or(" ").to_owned(),
        millis(&peer["minping"]),
        millis(&peer["pingtime"]),
        ago(now, &peer["lastsend"], 1).unwrap_or_default(),
        ago(now, &peer["lastrecv"], 1).unwrap_or_default(),
        ago(now, &peer["last_transaction"], 60).unwrap_or_else(|| if flag("relaytxes") { "" } else { "*" }.to_owned()),
        ago(now, &peer["last_block"], 60).unwrap_or_default(),
        mark(flag("bip152_hb_to"), ".") + &mark(flag("bip152_hb_from"), "*"),
        count("addr_processed").unwrap_or_else(|| if flag("addr_relay_enabled") { "" } else { "." }.to_owned()),
        count("addr_rate_limited").unwrap_or_default(),
        ago(now, &peer["conntime"], 60).unwrap_or_default(),
        peer["id"].to_string(),
    ];
    let version = format!("{}{}", peer["version"], text(&peer["subver"]));
    Row {
        outbound,
        shortest: peer["minping"].as_f64().unwrap_or(-1.0),
        cells,
        address: text(&peer["addr"]).to_owned(),
        version: if version == "0" { String::new() } else { version },
    }
}

fn net(client: &Client, network: Network, level: u8, outbound_only: bool) -> Result<Value, CallError> {
    let peers = client.ask("getpeerinfo", json!([]))?;
    let info = client.ask("getnetworkinfo", json!([]))?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let peers: Vec<&Value> = peers.as_array().into_iter().flatten().collect();
    let chain = match network {
        Network::Mainnet => String::new(),
        Network::Testnet3 => " testnet".to_owned(),
        other => format!(" {}", other.name()),
    };
    let services = match level {
        0 => String::new(),
        _ => format!(" - services {}", letters(&info["localservicesnames"])),
    };
    let mut shown = format!(
        "Bitcoin Core client {}{chain} - server {}{}{services}\n\n",
        super::VERSION,
        info["protocolversion"],
        text(&info["subversion"]),
    );
    if level > 0 {
        let outbound = |peer: &&&Value| !outbound_only || peer["inbound"] == json!(false);
        let mut rows: Vec<Row> = peers.iter().filter(outbound).map(|peer| row(peer, now)).collect();
        rows.sort_by(|a, b| a.outbound.cmp(&b.outbound).then(a.shortest.total_cmp(&b.shortest)));
        if !rows.is_empty() {
            list(&mut shown, &rows, matches!(level, 2 | 4), level >= 3);
        }
    }
    totals(&mut shown, &peers, &info);
    if level == 0 {
        let names = info["localservicesnames"].as_array().into_iter().flatten().map(text);
        let names: Vec<String> = names.map(|name| name.to_lowercase().replace('_', " ")).collect();
        shown.push_str(&format!("\n\nLocal services: {}", names.join(", ")));
    }
    shown.push_str("\n\nLocal addresses");
    let local: Vec<&Value> = info["localaddresses"].as_array().into_iter().flatten().collect();
    if local.is_empty() {
        shown.push_str(": n/a\n");
    }
    let width = local
        .iter()
        .map(|row| text(&row["address"]).len() + 1)
        .max()
        .unwrap_or(0);
    for row in local {
        let (address, port, score) = (text(&row["address"]), row["port"].to_string(), row["score"].to_string());
        // Writing to a text never fails, here and below.
        let _ = write!(shown, "\n{address:width$}    port {port:>6}    score {score:>6}");
    }
    Ok(shown.into())
}

/// The peers, one a line, in columns that are as wide as what stands in them.
fn list(shown: &mut String, rows: &[Row], address: bool, version: bool) {
    let width = |cell: usize, least: usize| {
        rows.iter()
            .filter_map(|row| row.cells.get(cell))
            .map(String::len)
            .max()
            .unwrap_or(0)
            .max(least)
    };
    let (services, id) = (width(3, 6), width(15, 2));
    let (processed, limited, age) = (width(12, 5), width(13, 6), width(14, 5));
    let places = if address {
        rows.iter().map(|row| row.address.len() + 1).max().unwrap_or(0)
    } else {
        0
    };
    let titles = (
        if address { "address" } else { "" },
        if version { "version" } else { "" },
    );
    let _ = writeln!(
        shown,
        "<->   type   net {:>services$}  v  mping   ping send recv  txn  blk  hb {:>processed$}{:>limited$}{:>age$} {:>id$} \
         {:places$}{}",
        "serv", "addrp", "addrl", "age", "id", titles.0, titles.1,
    );
    for row in rows {
        let [
            way,
            kind,
            net,
            serv,
            v,
            least,
            ping,
            send,
            recv,
            txn,
            blk,
            hb,
            addrp,
            addrl,
            old,
            number,
        ] = row.cells.as_slice()
        else {
            continue;
        };
        let at = if address { row.address.as_str() } else { "" };
        let name = if version { row.version.as_str() } else { "" };
        let _ = writeln!(
            shown,
            "{way:>3} {kind:>6} {net:>5} {serv:>services$} {v:>2}{least:>7}{ping:>7}{send:>5}{recv:>5}{txn:>5}{blk:>5}  \
             {hb:>2} {addrp:>processed$}{addrl:>limited$}{old:>age$} {number:>id$} {at:places$}{name}",
        );
    }
    let _ = write!(
        shown,
        "                {:services$}         ms     ms  sec  sec  min  min                {:>age$}\n\n",
        "", "min"
    );
}

/// How many peers there are of each network.
fn totals(shown: &mut String, peers: &[&Value], info: &Value) {
    let count = |network: Option<&str>, inbound: Option<bool>| {
        let of_network = |peer: &&&Value| network.is_none_or(|network| text(&peer["network"]) == network);
        let of_side = |peer: &&&Value| inbound.is_none_or(|inbound| peer["inbound"] == json!(inbound));
        peers.iter().filter(of_network).filter(of_side).count()
    };
    let of_kind = |kind: &str| {
        peers
            .iter()
            .filter(|peer| text(&peer["connection_type"]) == kind)
            .count()
    };
    let mut columns: Vec<&str> = Vec::new();
    shown.push_str("     ");
    for row in info["networks"].as_array().into_iter().flatten() {
        let name = text(&row["name"]);
        if row["reachable"] == json!(true) && NETWORKS.iter().any(|(known, _)| *known == name) {
            let _ = write!(shown, "{name:>8}");
            columns.push(name);
        }
    }
    for (name, short) in [NETWORKS[0], NETWORKS[6]] {
        if count(Some(name), None) > 0 {
            let _ = write!(shown, "{short:>8}");
            columns.push(name);
        }
    }
    let manual = of_kind("manual");
    shown.push_str("   total   block");
    if manual > 0 {
        shown.push_str("  manual");
    }
    for (title, inbound) in [("in", Some(true)), ("out", Some(false)), ("total", None)] {
        let _ = write!(shown, "\n{title:<5}");
        for name in &columns {
            let _ = write!(shown, "{:>8}", count(Some(name), inbound));
        }
        let _ = write!(shown, "   {:>5}", count(None, inbound));
        if inbound == Some(false) {
            let _ = write!(shown, "   {:>5}", of_kind("block-relay-only"));
            if manual > 0 {
                let _ = write!(shown, "   {manual:>5}");
            }
        }
    }
}

const PEERS_HELP: &str = "-netinfo (level [outonly]) | help

Shows the daemon's peers, for people.

Arguments:
1. level (integer 0-4, optional)  How much to show (default 0):
                                  0 - how many peers there are of each network, and the addresses of this node
                                  1 - the peers, too
                                  2 - with their addresses
                                  3 - with their versions
                                  4 - with both
2. outonly (\"outonly\" or \"o\", optional) Only peers that this node chose itself; with a level above 0.

help (\"help\" or \"h\", optional) Show this text.

Columns:
  <->      in: the peer connected to us; out: we connected to it
  type     full, block (blocks only), manual, feeler, addr (asked for addresses), priv (a private broadcast)
  net      ipv4, ipv6, onion, i2p, cjdns, or npr where nobody from elsewhere comes
  serv     what the peer offers: n blocks, b bloom filters, w witnesses, c compact filters, l recent blocks,
           2 the encrypted transport, u something unknown
  v        the version of the transport
  mping    the shortest round trip, ping the last one, in milliseconds
  send     seconds since something was sent, recv since something came
  txn      minutes since the peer gave a new transaction (* it is given none), blk a new block
  hb       . it announces blocks to us by compact blocks, * we do so to it
  addrp    addresses taken from the peer (. none are exchanged), addrl dropped because they were too many
  age      minutes since the connection began
  id       its number
";
