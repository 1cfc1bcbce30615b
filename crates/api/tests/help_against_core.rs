//! Which methods there are, and what they take: `help` of a real bitcoind and ours.

#![allow(clippy::unwrap_used)]

mod lab;

use std::collections::{BTreeMap, BTreeSet};

use lab::pair::Pair;
use serde_json::{Value, json};

/// Methods of Core that `help` does not list.
const HIDDEN: [&str; 19] = [
    "addconnection",
    "addpeeraddress",
    "echo",
    "echoipc",
    "echojson",
    "estimaterawfee",
    "generate",
    "generateblock",
    "generatetoaddress",
    "generatetodescriptor",
    "getmempoolfeeratediagram",
    "getorphantxs",
    "getrawaddrman",
    "invalidateblock",
    "mockscheduler",
    "reconsiderblock",
    "sendmsgtopeer",
    "setmocktime",
    "syncwithvalidationinterfacequeue",
];

/// Methods of Core that are not here, and why; every other one is.
const MISSING: [(&str, &str); 9] = [
    ("abortprivatebroadcast", "what is broadcast in private is not told yet"),
    ("addconnection", "the relay takes no connection of a chosen kind yet"),
    ("addpeeraddress", "the relay takes no address by hand yet"),
    ("estimaterawfee", "the estimator tells answers, not its buckets"),
    (
        "exportasmap",
        "no AS map is built in, as in this bitcoind, which refuses the call",
    ),
    ("getorphantxs", "the relay does not tell its orphans yet"),
    (
        "getprivatebroadcastinfo",
        "what is broadcast in private is not told yet",
    ),
    ("sendmsgtopeer", "the relay sends no messages by hand yet"),
    ("setnetworkactive", "the relay cannot be switched off by itself yet"),
];

/// Groups of our own, and that of ZeroMQ, which this bitcoind is built without.
const OURS: [&str; 3] = ["Dunlin", "Torrent", "Zmq"];

/// The methods of each group in a list of `help`.
fn groups(list: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut group = String::new();
    for line in list.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("== ").and_then(|line| line.strip_suffix(" ==")) {
            Some(name) => group = name.to_owned(),
            None => {
                let method = line.split(' ').next().unwrap().to_owned();
                groups.entry(group.clone()).or_default().insert(method);
            }
        }
    }
    groups
}

/// The arguments in a text of `help`: their names, and whether they can be left out.
fn arguments(text: &str) -> Vec<(String, &'static str)> {
    let Some((_, rest)) = text.split_once("\nArguments:\n") else {
        return Vec::new();
    };
    let (rest, _) = rest.split_once("\nResult").unwrap_or((rest, ""));
    let mut found = Vec::new();
    for line in rest.lines() {
        // The arguments themselves stand at the beginning of a line, with their number.
        let Some((number, rest)) = line.split_once(". ") else {
            continue;
        };
        if number.parse() != Ok(found.len() + 1) {
            continue;
        }
        let (name, rest) = rest.split_once(' ').unwrap();
        let inside = rest.trim_start().strip_prefix('(').unwrap_or_else(|| panic!("{line}"));
        let (inside, _) = inside.split_once(')').unwrap();
        let needed = inside.split(", ").any(|part| part == "required");
        found.push((name.to_owned(), if needed { "required" } else { "optional" }));
    }
    found
}

#[tokio::test]
async fn every_method_of_core_is_here_with_its_arguments() {
    let pair = Pair::start();
    let core_help = |params: Value| pair.core.call("help", params).unwrap().as_str().unwrap().to_owned();
    let ours_help = async |params: Value| pair.ours("help", &params).await.unwrap().as_str().unwrap().to_owned();
    let missing: BTreeSet<&str> = MISSING.iter().map(|(name, _)| *name).collect();

    let (mut core, mut ours) = (groups(&core_help(json!([]))), groups(&ours_help(json!([])).await));
    for group in OURS {
        assert!(ours.remove(group).is_some() || group == "Zmq", "{group}");
    }
    for methods in core.values_mut() {
        methods.retain(|method| !missing.contains(method.as_str()));
    }
    assert_eq!(core, ours, "the methods of each group");

    let mut wrong = Vec::new();
    let listed = core.values().flatten().map(String::as_str);
    for method in listed.chain(HIDDEN).filter(|method| !missing.contains(method)) {
        let (theirs, here) = (core_help(json!([method])), ours_help(json!([method])).await);
        assert!(
            !theirs.starts_with("help: unknown command"),
            "{method} is no method of Core"
        );
        if here.starts_with("help: unknown command") {
            wrong.push(format!("{method} is not here"));
        } else if arguments(&theirs) != arguments(&here) {
            let (theirs, here) = (arguments(&theirs), arguments(&here));
            wrong.push(format!("{method}:\n  core {theirs:?}\n  ours {here:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in missing {
        let here = ours_help(json!([name])).await;
        assert!(here.starts_with("help: unknown command"), "{name} is here: say so");
    }
}
