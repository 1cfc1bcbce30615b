//! Datagrams of a machine: a UDP socket at each address that is listened on.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as StdSocket};
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use dunlin_peer::{Codec, Input, Machine};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use tokio::net::UdpSocket;
use tokio::task::{JoinHandle, spawn_local, yield_now};

use crate::driver::Driver;

/// The longest payload that UDP can carry over IPv4.
const MAX_DATAGRAM: usize = 65_507;
/// Datagrams taken in before the links have their turn.
const BATCH: usize = 64;
/// What the kernel is asked to keep for us while we are busy with something else.
const KERNEL_BUFFER: usize = 1 << 20;

/// Receives on each socket until the task is aborted.
pub(crate) fn receive_all<M, C>(driver: &Rc<Driver<M, C>>, sockets: Vec<StdSocket>) -> Vec<JoinHandle<()>>
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut tasks = Vec::new();
    for socket in sockets {
        // Without the larger buffer a burst loses datagrams, which the protocols above survive.
        let _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, KERNEL_BUFFER);
        let _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, KERNEL_BUFFER);
        match UdpSocket::from_std(socket) {
            Ok(socket) => {
                let socket = Rc::new(socket);
                driver.sockets.borrow_mut().push(Rc::clone(&socket));
                tasks.push(spawn_local(receive(Rc::clone(driver), socket)));
            }
            Err(error) => tracing::error!(%error, "cannot watch a socket for datagrams"),
        }
    }
    tasks
}

/// A socket for the datagrams of each group that this machine can join. Other programs listen there, too. The sockets
/// that are sent from are told to send to groups through the interface that they are bound to.
pub(crate) fn join(groups: &[SocketAddr], own: &[StdSocket]) -> Vec<StdSocket> {
    let locals: Vec<IpAddr> = own
        .iter()
        .filter_map(|socket| Some(socket.local_addr().ok()?.ip()))
        .collect();
    for socket in own {
        if let Ok(SocketAddr::V4(local)) = socket.local_addr()
            && !local.ip().is_unspecified()
        {
            let _ = rustix::net::sockopt::set_ip_multicast_if(socket, local.ip());
        }
    }
    let join = |group: &SocketAddr| -> io::Result<StdSocket> {
        let family = if group.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let socket = rustix::net::socket_with(family, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
        rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, group)?;
        let socket = StdSocket::from(socket);
        match group.ip() {
            IpAddr::V4(ip) => {
                let local = locals.iter().find_map(|local| match local {
                    IpAddr::V4(local) => Some(*local),
                    IpAddr::V6(_) => None,
                });
                socket.join_multicast_v4(&ip, &local.unwrap_or(Ipv4Addr::UNSPECIFIED))?;
            }
            IpAddr::V6(ip) => socket.join_multicast_v6(&ip, 0)?,
        }
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let family_is_used = |group: &&SocketAddr| locals.iter().any(|local| local.is_ipv4() == group.is_ipv4());
    groups
        .iter()
        .filter(family_is_used)
        .filter_map(|group| {
            join(group)
                .inspect_err(|error| tracing::debug!(%group, %error, "cannot join the group"))
                .ok()
        })
        .collect()
}

/// Receives on sockets that nothing is sent from, until the task is aborted.
pub(crate) fn receive_only<M, C>(driver: &Rc<Driver<M, C>>, sockets: Vec<StdSocket>) -> Vec<JoinHandle<()>>
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let sockets = sockets
        .into_iter()
        .filter_map(|socket| UdpSocket::from_std(socket).ok());
    sockets
        .map(|socket| spawn_local(receive(Rc::clone(driver), Rc::new(socket))))
        .collect()
}

async fn receive<M, C>(driver: Rc<Driver<M, C>>, socket: Rc<UdpSocket>)
where
    M: Machine + 'static,
    C: Codec<Msg = M::Msg> + 'static,
{
    let mut room = vec![0; MAX_DATAGRAM];
    loop {
        if let Err(error) = socket.readable().await {
            tracing::error!(%error, "datagrams are not received any more");
            return;
        }
        for _ in 0..BATCH {
            match socket.try_recv_from(&mut room) {
                Ok((length, from)) => {
                    // Exactly as long as the payload: what a machine keeps of it holds no more than that.
                    let bytes = BytesMut::from(&room[..length]).freeze();
                    driver.input(Input::Datagram { from, bytes });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // An earlier datagram of ours was refused at its target; that says nothing of this socket.
                Err(_) => {}
            }
        }
        driver.settle();
        yield_now().await;
    }
}

/// Sends from the first socket of the target's family. When that is full the datagram is lost, as on its way.
pub(crate) fn send(sockets: &[Rc<UdpSocket>], to: SocketAddr, bytes: &Bytes) {
    let fits = |socket: &&Rc<UdpSocket>| socket.local_addr().is_ok_and(|local| local.is_ipv4() == to.is_ipv4());
    let Some(socket) = sockets.iter().find(fits) else {
        return;
    };
    // Straight to the system: the runtime would refuse until it has heard from the socket once. The first error may
    // belong to an earlier datagram that was refused at its target, so one is forgiven.
    let sent = (0..2).find_map(|_| rustix::net::sendto(&**socket, bytes, SendFlags::empty(), &to).ok());
    if sent.is_none() {
        tracing::trace!(%to, "a datagram was not sent");
    }
}
