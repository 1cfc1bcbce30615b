//! Opening a link to an address.

use std::rc::Rc;

use dunlin_peer::{Codec, DialToken, Direction, Input, Machine, NetAddr};

use crate::driver::Driver;
use crate::proxies;

/// Dials within the dial timeout and answers the machine once: `Connected` or `DialFailed`.
pub(crate) async fn run<M, C>(driver: Rc<Driver<M, C>>, addr: M::Addr, token: DialToken)
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    // The semaphore is never closed; without a permit the dial would merely not be limited.
    let _permit = driver.dials.acquire().await;
    let to: NetAddr = addr.into();
    let config = &driver.config;
    let patience = proxies::patience(&config.proxies, to.host.class(), config.dial_timeout);
    let connect = proxies::connect(&config.proxies, driver.i2p.as_deref(), to);
    let outcome = tokio::time::timeout(patience, connect).await;
    if driver.is_stopping() {
        return;
    }
    match outcome {
        Ok(Ok(stream)) => return driver.open(stream, addr, Direction::Outbound, Some(token)),
        Ok(Err(error)) => tracing::debug!(%addr, %error, "dial failed"),
        Err(_) => tracing::debug!(%addr, "dial timed out"),
    }
    driver.input(Input::DialFailed { addr, token });
    driver.settle();
}
