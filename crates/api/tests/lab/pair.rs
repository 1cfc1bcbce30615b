//! The same chain in a real bitcoind and in our node, asked the same.

use std::sync::Arc;

use dunlin_api::rpc::{Params, Request, RpcError, Shared, call};
use dunlin_chain::indexes::IndexKind;
use dunlin_chain::{ChainConfig, Network};
use dunlin_testkit::core::{Bitcoind, Options};
use serde_json::{Value, json};

use super::{Lab, Shelf, node};

/// Both nodes.
pub struct Pair {
    pub core: Bitcoind,
    pub shared: Arc<Shared>,
}

impl Pair {
    pub fn start() -> Self {
        Self::start_with(Options::default(), ChainConfig::default(), &[])
    }

    pub fn start_with(options: Options, config: ChainConfig, indexes: &[IndexKind]) -> Self {
        let core = Bitcoind::start(options).unwrap();
        let node = node(
            &Lab::with(Network::Regtest, config, indexes),
            &Arc::new(Shelf::default()),
        );
        Self {
            core,
            shared: Shared::new(node),
        }
    }

    pub async fn ours(&self, method: &str, params: &Value) -> Result<Value, RpcError> {
        let params = match params {
            Value::Array(list) => Params::Positional(list.clone()),
            Value::Object(map) => Params::Named(map.clone()),
            other => panic!("{other}"),
        };
        call(
            &self.shared,
            Request {
                method: method.to_owned(),
                params,
            },
        )
        .await
    }

    /// Asks both the same; the answers, or the errors with their codes and texts, must be equal but for `except`.
    pub async fn same_but(&self, method: &str, params: Value, except: &[&str]) -> Value {
        let ours = self.ours(method, &params).await;
        let core = self.core.call(method, params.clone());
        match (core, ours) {
            (Ok(mut core), Ok(mut ours)) => {
                for name in except {
                    remove(&mut core, name);
                    remove(&mut ours, name);
                }
                assert_same(&core, &ours, &format!("{method} {params}"));
                ours
            }
            (Err(dunlin_testkit::RpcError::Reply { code, message, .. }), Err(ours)) => {
                assert_eq!(
                    (code, message.as_str()),
                    (i64::from(ours.code), ours.message.as_str()),
                    "{method} {params}"
                );
                Value::Null
            }
            (core, ours) => panic!("{method} {params}\ncore {core:?}\nours {ours:?}"),
        }
    }

    pub async fn same(&self, method: &str, params: Value) -> Value {
        self.same_but(method, params, &[]).await
    }

    /// Gives our node the blocks that bitcoind has and ours lacks.
    pub async fn follow(&self) {
        for height in
            self.ours("getblockcount", &json!([])).await.unwrap().as_u64().unwrap() + 1..=self.core.height().unwrap()
        {
            let hash = self.core.hash_at(height).unwrap();
            let hex = self.core.call("getblock", json!([hash, 0])).unwrap();
            assert_eq!(
                self.ours("submitblock", &json!([hex])).await,
                Ok(Value::Null),
                "block {height}"
            );
        }
    }

    /// Gives our node every block of bitcoind's chain, in case it lacks some of another branch.
    pub async fn follow_any(&self) {
        for height in 1..=self.core.height().unwrap() {
            let hash = self.core.hash_at(height).unwrap();
            let hex = self.core.call("getblock", json!([hash, 0])).unwrap();
            self.ours("submitblock", &json!([hex])).await.unwrap();
        }
    }
}

fn remove(value: &mut Value, name: &str) {
    match value {
        Value::Object(map) => {
            map.shift_remove(name);
            map.values_mut().for_each(|value| remove(value, name));
        }
        Value::Array(list) => list.iter_mut().for_each(|value| remove(value, name)),
        _ => {}
    }
}

/// Equal down to the text of every number and the order of fields.
fn assert_same(core: &Value, ours: &Value, at: &str) {
    match (core, ours) {
        (Value::Object(core), Value::Object(ours)) => {
            let names = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(core), names(ours), "fields of {at}");
            for (name, value) in core {
                assert_same(value, &ours[name], &format!("{at}.{name}"));
            }
        }
        (Value::Array(core), Value::Array(ours)) => {
            assert_eq!(core.len(), ours.len(), "length of {at}: {core:?} {ours:?}");
            for (index, (core, ours)) in core.iter().zip(ours).enumerate() {
                assert_same(core, ours, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(core.to_string(), ours.to_string(), "{at}"),
    }
}
