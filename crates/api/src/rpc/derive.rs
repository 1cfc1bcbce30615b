//! `deriveaddresses` and `getdescriptorinfo`: what a descriptor says and stands for.

use bitcoin::Address;
use dunlin_chain::Network;
use serde_json::{Map, Value};

use super::descriptors::{Parsed, parse};
use super::error::{INVALID_ADDRESS_OR_KEY, INVALID_PARAMETER, RpcError};
use super::method::{Answer, Call};
use super::scan;
use super::script::{descriptor_checksum, with_checksum};

fn unclear(text: String) -> RpcError {
    RpcError::new(INVALID_ADDRESS_OR_KEY, text)
}

pub(crate) fn deriveaddresses(call: &Call) -> Answer {
    let network = call.shared.node.network;
    let range = call.given(1).then(|| scan::range(call.arg(1))).transpose()?;
    let text = call.str(0)?;
    let parsed = parse(text, network).map_err(unclear)?;
    if !text.contains('#') {
        return Err(unclear("Missing checksum".to_owned()));
    }
    let invalid = |text: &str| Err(RpcError::new(INVALID_PARAMETER, text));
    match (parsed.is_ranged(), &range) {
        (false, Some(_)) => return invalid("Range should not be specified for an un-ranged descriptor"),
        (true, None) => return invalid("Range must be specified for a ranged descriptor"),
        _ => {}
    }
    let range = range.unwrap_or(0..=0);
    let paths = parsed.paths();
    let lists = paths.iter().map(|path| addresses(path, range.clone(), network));
    let mut lists: Vec<Value> = lists.collect::<Result<_, _>>()?;
    match lists.len() {
        1 => Ok(lists.remove(0)),
        _ => Ok(lists.into()),
    }
}

fn addresses(path: &Parsed, range: std::ops::RangeInclusive<u32>, network: Network) -> Answer {
    let mut list: Vec<Value> = Vec::new();
    for index in range {
        let private = || unclear("Cannot derive script without private keys".to_owned());
        let scripts = path.at(index).ok_or_else(private)?;
        for (script, _) in &scripts {
            // A key by itself has no address; it is one of the forms of combo.
            let of_combo = scripts.len() > 1 && script.is_p2pk();
            match Address::from_script(script, network.to_bitcoin()) {
                Ok(address) => list.push(address.to_string().into()),
                Err(_) if of_combo => {}
                Err(_) => return Err(unclear("Descriptor does not have a corresponding address".to_owned())),
            }
        }
    }
    Ok(list.into())
}

pub(crate) fn getdescriptorinfo(call: &Call) -> Answer {
    let text = call.str(0)?;
    let parsed = parse(text, call.shared.node.network).map_err(unclear)?;
    let body = text.split_once('#').map_or(text, |(body, _)| body);
    let public = parsed.public(body);
    let paths = parsed.path_texts(&public);
    let mut map = Map::new();
    map.insert(
        "descriptor".into(),
        with_checksum(paths.first().unwrap_or(&public)).into(),
    );
    if paths.len() > 1 {
        map.insert(
            "multipath_expansion".into(),
            paths.iter().map(|path| with_checksum(path)).collect(),
        );
    }
    map.insert("checksum".into(), descriptor_checksum(body).into());
    map.insert("isrange".into(), parsed.is_ranged().into());
    let opaque = body.starts_with("raw(") || body.starts_with("addr(");
    map.insert("issolvable".into(), (!opaque).into());
    map.insert("hasprivatekeys".into(), (public != body).into());
    Ok(Value::Object(map))
}
