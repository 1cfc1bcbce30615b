//! Who may call from where, and which methods: Core's `rpcallowip` and `rpcwhitelist`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use dunlin_peer::Host;
use dunlin_relay::Subnet;
use serde_json::Value;

/// What callers may do; by default those of this machine may do everything.
#[derive(Clone, Debug, Default)]
pub struct Access {
    networks: Vec<Subnet>,
    methods: BTreeMap<String, BTreeSet<String>>,
    listed_only: Option<bool>,
}

impl Access {
    /// Lets callers in from another network.
    pub fn allow_network(&mut self, network: Subnet) {
        self.networks.push(network);
    }

    /// Takes `USER:METHOD,METHOD...`: the user may call these alone. What is said of one user twice must hold together.
    pub fn add_whitelist(&mut self, text: &str) {
        let (user, methods) = text.split_once(':').unwrap_or((text, ""));
        let methods = methods.split([',', ' ']).filter(|method| !method.is_empty());
        let methods: BTreeSet<String> = methods.map(str::to_owned).collect();
        match self.methods.get_mut(user) {
            Some(known) => known.retain(|method| methods.contains(method)),
            None => drop(self.methods.insert(user.to_owned(), methods)),
        }
    }

    /// Whether users of whom nothing is said may call nothing; by default that is so once something is said of anyone.
    pub fn set_listed_only(&mut self, listed_only: bool) {
        self.listed_only = Some(listed_only);
    }

    /// Whether somebody may call from here.
    pub(super) fn admits(&self, ip: IpAddr) -> bool {
        let from = Host::from(ip);
        ip.to_canonical().is_loopback() || self.networks.iter().any(|network| network.contains(&from))
    }

    /// Whether callers from elsewhere are expected, who know this machine by names that we do not.
    pub(super) fn is_open(&self) -> bool {
        !self.networks.is_empty()
    }

    /// Whether a user may send this body: one request, or several.
    pub(super) fn allows(&self, user: &str, body: &Value) -> bool {
        let Some(methods) = self.methods.get(user) else {
            return !self.listed_only.unwrap_or(!self.methods.is_empty());
        };
        let allowed = |request: &Value| {
            let method = request.get("method").and_then(Value::as_str);
            method.is_none_or(|method| methods.contains(method))
        };
        match body {
            Value::Array(batch) => batch.iter().all(allowed),
            single => allowed(single),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_may_do_what() {
        let call = |method: &str| json!({ "method": method });
        let mut access = Access::default();
        assert!(access.admits("127.0.0.1".parse().unwrap()) && access.admits("::ffff:127.0.0.1".parse().unwrap()));
        assert!(!access.admits("10.1.2.3".parse().unwrap()) && !access.is_open());
        access.allow_network("10.0.0.0/8".parse().unwrap());
        assert!(access.admits("10.1.2.3".parse().unwrap()) && !access.admits("11.1.2.3".parse().unwrap()));
        assert!(access.allows("anyone", &call("stop")));
        access.add_whitelist("alice:getblockcount, getblockhash");
        assert!(access.allows("alice", &call("getblockhash")) && !access.allows("alice", &call("stop")));
        assert!(!access.allows("bob", &call("getblockhash")));
        access.set_listed_only(false);
        assert!(access.allows("bob", &call("stop")));
        access.add_whitelist("alice:getblockcount");
        assert!(!access.allows("alice", &call("getblockhash")));
        let batch = json!([call("getblockcount"), call("stop")]);
        assert!(!access.allows("alice", &batch) && access.allows("alice", &json!([call("getblockcount")])));
    }
}
