//! `getzmqnotifications`.

use serde_json::{Value, json};

use super::method::{Answer, Call};

pub(crate) fn getzmqnotifications(call: &Call) -> Answer {
    let notifiers = call.shared.node.zmq.as_ref().map(|publisher| publisher.notifiers());
    let shown = notifiers.into_iter().flatten().map(|notifier| {
        json!({
            "type": format!("pub{}", notifier.topic.name()),
            "address": format!("tcp://{}", notifier.addr),
            "hwm": notifier.high_water,
        })
    });
    Ok(shown.collect::<Vec<Value>>().into())
}
