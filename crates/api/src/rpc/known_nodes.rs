//! What is known of other nodes: `getaddednodeinfo`, `getnodeaddresses`, `getaddrmaninfo`; and `ping`.

use dunlin_peer::{AddressBook, AddressEntry, Host, NetClass, Now};
use serde_json::{Map, Value, json};

use super::error::{INVALID_PARAMETER, NODE_NOT_ADDED, RpcError};
use super::method::{Answer, Call};
use super::net::network_name;
use super::unix_now;

pub(crate) async fn getaddednodeinfo(call: Call) -> Answer {
    let mut rows = Vec::new();
    let wanted = call.opt_str(0)?;
    for (addr, connected) in call.bitcoin()?.added_nodes().await? {
        if wanted.is_some_and(|wanted| wanted != addr.to_string()) {
            continue;
        }
        let addresses = match connected {
            true => json!([{ "address": addr.to_string(), "connected": "outbound" }]),
            false => json!([]),
        };
        rows.push(json!({ "addednode": addr.to_string(), "connected": connected, "addresses": addresses }));
    }
    if wanted.is_some() && rows.is_empty() {
        return Err(RpcError::new(NODE_NOT_ADDED, "Error: Node has not been added."));
    }
    Ok(rows.into())
}

pub(crate) async fn getnodeaddresses(call: Call) -> Answer {
    let count: i32 = call.int_or(0, 1)?;
    let invalid = |text: String| RpcError::new(INVALID_PARAMETER, text);
    let count = usize::try_from(count).map_err(|_| invalid("Address count out of range".to_owned()))?;
    let network = call.opt_str(1)?;
    let unknown = |network: &str| invalid(format!("Network not recognized: {network}"));
    let network = match network {
        Some(name) => Some(name.parse::<NetClass>().map_err(|_| unknown(name))?.name()),
        None => None,
    };
    let mut book: Box<AddressBook> = call.bitcoin()?.address_book().await?;
    let all = book.sample(&mut rand::rng(), usize::MAX, Now::from_unix_secs(unix_now()));
    let fits = |host: &Host| network.is_none_or(|network| network == family(host));
    let rows = all.into_iter().filter(|(addr, ..)| fits(&addr.host)).take(match count {
        0 => usize::MAX,
        count => count,
    });
    let shown = rows.map(|(addr, services, time)| {
        json!({
            "time": time,
            "services": services,
            "address": addr.host.to_string(),
            "port": addr.port,
            "network": family(&addr.host),
        })
    });
    Ok(shown.collect::<Vec<Value>>().into())
}

/// Core's name for the network of a host.
fn family(host: &Host) -> &'static str {
    host.ip().map_or(host.class().name(), network_name)
}

pub(crate) async fn getaddrmaninfo(call: Call) -> Answer {
    let book = call.bitcoin()?.address_book().await?;
    let mut map = Map::new();
    let count = |network: Option<&str>, tried: bool| {
        let entries = book.iter().filter(|entry| entry.tried == tried);
        entries
            .filter(|entry| network.is_none_or(|network| network == family(&entry.addr.host)))
            .count()
    };
    for network in NetClass::ALL.map(|class| Some(class.name())).into_iter().chain([None]) {
        let (new, tried) = (count(network, false), count(network, true));
        let row = json!({ "new": new, "tried": tried, "total": new + tried });
        map.insert(network.unwrap_or("all_networks").to_owned(), row);
    }
    Ok(Value::Object(map))
}

pub(crate) async fn getrawaddrman(call: Call) -> Answer {
    let book = call.bitcoin()?.address_book().await?;
    let table = |tried: bool| -> Map<String, Value> {
        let row = |(bucket, position, entry): (u32, u32, &AddressEntry)| {
            let shown = json!({
                "address": entry.addr.host.to_string(),
                "port": entry.addr.port,
                "services": entry.services,
                "time": entry.time,
                "network": family(&entry.addr.host),
                "source": entry.source.to_string(),
                "source_network": family(&entry.source),
            });
            (format!("{bucket}/{position}"), shown)
        };
        book.places(tried).map(row).collect()
    };
    Ok(json!({ "new": table(false), "tried": table(true) }))
}

pub(crate) async fn ping(call: Call) -> Answer {
    call.bitcoin()?.ping().await?;
    Ok(Value::Null)
}
