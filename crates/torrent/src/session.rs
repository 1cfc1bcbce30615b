//! The torrent engine: many torrents over one listening side, as one [`Machine`].

use dunlin_peer::{Input, Machine, Now, Outbox, Output};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::PeerId;
pub use crate::command::{AddTorrent, Command, Config, Done, Event, Job, Limits, Source};
pub use crate::status::{PeerFlags, PeerStatus, State, TorrentStatus, TrackerStatus};
use crate::wire::Message;

/// The engine.
#[derive(Debug)]
pub struct Session {
    peer_id: PeerId,
    out: Outbox<Message, Event, Job>,
}

impl Session {
    /// An engine without torrents.
    pub fn new(config: Config, _now: Now) -> Self {
        let mut rng = ChaCha8Rng::from_seed(config.seed);
        let peer_id = PeerId::new(&config.peer_id_prefix, rng.random());
        Self {
            peer_id,
            out: Outbox::default(),
        }
    }

    /// Our name on the wire.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }
}

impl Machine for Session {
    type Msg = Message;
    type Command = Command;
    type Event = Event;
    type Job = Job;
    type Done = Done;

    fn handle(&mut self, _now: Now, input: Input<Message, Command, Done>) {
        if let Input::Command(Command::Query { ticket }) = input {
            self.out.event(Event::Status {
                ticket,
                torrents: Vec::new(),
            });
        }
    }

    fn handle_timeout(&mut self, _now: Now) {}

    fn poll_timeout(&self) -> Option<Now> {
        None
    }

    fn poll(&mut self) -> Option<Output<Message, Event, Job>> {
        self.out.pop()
    }
}
