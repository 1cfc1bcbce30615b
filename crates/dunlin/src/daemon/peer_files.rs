//! `banlist.json` and `anchors.json`: whom we refuse, in the form that Bitcoin Core reads and writes, and whom we dial
//! first.

use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::Context;
use dunlin_peer::NetAddr;
use dunlin_relay::{Ban, Subnet};
use serde_json::{Value, json};

const BANS: &str = "banlist.json";
const ANCHORS: &str = "anchors.json";
/// More anchors than we ever write are not read.
const MAX_ANCHORS: usize = 8;

/// The saved bans; those that have ended, too.
pub(super) fn load_bans(dir: &Path) -> Vec<Ban> {
    let bans = |value: Value| -> Option<Vec<Ban>> { value["banned_nets"].as_array()?.iter().map(ban).collect() };
    load(dir, BANS, bans).unwrap_or_default()
}

fn ban(entry: &Value) -> Option<Ban> {
    Some(Ban {
        subnet: entry["address"].as_str()?.parse::<Subnet>().ok()?,
        created: entry["ban_created"].as_u64()?,
        until: entry["banned_until"].as_u64()?,
        discouraged: false,
        reason: "manual".to_owned(),
    })
}

/// Replaces the saved bans. Who is merely discouraged is forgotten at the end, as in Core.
pub(super) fn save_bans(dir: &Path, bans: &[Ban]) -> anyhow::Result<()> {
    let entry = |ban: &Ban| {
        json!({
            "version": 1,
            "ban_created": ban.created,
            "banned_until": ban.until,
            "address": ban.subnet.to_string(),
        })
    };
    let entries: Vec<Value> = bans.iter().filter(|ban| !ban.discouraged).map(entry).collect();
    save(dir, BANS, &json!({ "banned_nets": entries }))
}

/// The saved anchors. They are forgotten at once: if they bring us down, the next start goes without them.
pub(super) fn take_anchors(dir: &Path) -> Vec<NetAddr> {
    let addr = |entry: &Value| entry.as_str()?.parse().ok();
    let anchors =
        |value: Value| -> Option<Vec<NetAddr>> { value.as_array()?.iter().take(MAX_ANCHORS).map(addr).collect() };
    let anchors = load(dir, ANCHORS, anchors).unwrap_or_default();
    // Nothing is lost when it is still there at the next start.
    let _ = fs::remove_file(dir.join(ANCHORS));
    anchors
}

/// Saves the anchors, at the end.
pub(super) fn save_anchors(dir: &Path, anchors: &[NetAddr]) -> anyhow::Result<()> {
    let entries: Vec<String> = anchors.iter().map(NetAddr::to_string).collect();
    save(dir, ANCHORS, &json!(entries))
}

fn load<T>(dir: &Path, name: &str, read: impl FnOnce(Value) -> Option<T>) -> Option<T> {
    let path = dir.join(name);
    let bytes = fs::read(&path).ok()?;
    let found = serde_json::from_slice(&bytes).ok().and_then(read);
    if found.is_none() {
        tracing::warn!("{} is damaged; going on without it", path.display());
    }
    found
}

/// A crash leaves the old file or the new one.
fn save(dir: &Path, name: &str, value: &Value) -> anyhow::Result<()> {
    let (path, temporary) = (dir.join(name), dir.join(format!("{name}.new")));
    let write = || -> std::io::Result<()> {
        let mut file = fs::File::create(&temporary)?;
        file.write_all(serde_json::to_string_pretty(value)?.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_read_again_and_anchors_only_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load_bans(dir.path()).is_empty());
        let entry = |subnet: &str, discouraged| Ban {
            subnet: subnet.parse().unwrap(),
            created: 5,
            until: 77,
            discouraged,
            reason: "manual".to_owned(),
        };
        let bans = [entry("192.0.2.0/24", false), entry("198.51.100.7/32", true)];
        save_bans(dir.path(), &bans).unwrap();
        assert_eq!(load_bans(dir.path()), bans[..1]);
        let anchors: Vec<NetAddr> = vec!["192.0.2.1:8333".parse().unwrap(), "[2001:db8::1]:1".parse().unwrap()];
        save_anchors(dir.path(), &anchors).unwrap();
        assert_eq!(take_anchors(dir.path()), anchors);
        assert!(take_anchors(dir.path()).is_empty());
        fs::write(dir.path().join(BANS), b"{\"banned_nets\": 3").unwrap();
        assert!(load_bans(dir.path()).is_empty());
    }
}
