//! One worker's driver client: made at the first use, and made anew when its connections no longer answer.
//!
//! The driver has no limit on how long a connection may be silent. Behind a firewall that forgot them, all connections of a pool can
//! be dead while the driver's own monitor is well, and nothing would work until TCP gives up, a quarter of an hour later.
//! So after several deadlines in a row without one answer in between, later operations get a new client; those that hang keep the old
//! one until they end. Tests: `tests/it/store_conformance/outage.rs`.

use super::super::{Acknowledge, WriteConcernOptions};
use super::MongoShared;
use super::fault::Fault;
use bson::RawDocumentBuf;
use mongodb::options::{Acknowledgment, ClientOptions, WriteConcern};
use mongodb::{Client, Collection, Database};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::sync::OnceCell;

/// Deadlines in a row that make a client suspect.
const LATE: u32 = 4;
/// The least time between two new clients: a server that is merely slow must not drown in connections.
const PAUSE: Duration = Duration::from_secs(30);
/// Shorter than the memory of the firewalls one meets (240 s and more).
const IDLE: Duration = Duration::from_secs(120);

#[derive(Default)]
pub(super) struct Line {
    client: RefCell<Rc<OnceCell<Handles>>>,
    late: Cell<u32>,
    renewed: Cell<Option<Instant>>,
}

/// Cheap to clone, as the driver's own handles are.
#[derive(Clone)]
pub(super) struct Handles {
    pub(super) database: Database,
    pub(super) sessions: Collection<RawDocumentBuf>,
    /// The URL sends reads where they may be behind: to secondaries.
    pub(super) may_lag: bool,
}

impl Line {
    /// Connects at the first use: `mongodb+srv` asks the name servers, which may be down when the process starts.
    pub(super) async fn handles(&self, shared: &MongoShared) -> Result<Handles, Fault> {
        let client = Rc::clone(&self.client.borrow());
        client.get_or_try_init(|| connect(shared)).await.cloned()
    }

    /// An operation ended in time, with whatever result.
    pub(super) fn is_alive(&self) {
        self.late.set(0);
    }

    /// An operation passed the deadline.
    pub(super) fn is_late(&self) {
        self.late.set(self.late.get().saturating_add(1));
        let rested = self.renewed.get().is_none_or(|at| at.elapsed() >= PAUSE);
        if self.late.get() >= LATE && rested {
            tracing::warn!("MongoDB does not answer on its connections; new ones are made");
            self.late.set(0);
            self.renewed.set(Some(Instant::now()));
            self.client.replace(Rc::default());
        }
    }
}

fn write_concern(options: &WriteConcernOptions) -> WriteConcern {
    let w = options.w.as_ref().map(|w| match w {
        Acknowledge::Nodes(nodes) => Acknowledgment::Nodes(*nodes),
        Acknowledge::Majority => Acknowledgment::Majority,
        Acknowledge::Named(name) => Acknowledgment::Custom(name.clone()),
    });
    let mut concern = WriteConcern::default();
    (concern.w, concern.journal, concern.w_timeout) = (w, options.journal, options.timeout);
    concern
}

async fn connect(shared: &MongoShared) -> Result<Handles, Fault> {
    let MongoShared { options, connection, deadline, .. } = shared;
    let mut client = ClientOptions::parse(connection.clone()).await?;
    // Only what the URL leaves open.
    client.app_name.get_or_insert_with(|| "cloakroom".to_owned());
    // A little less than the deadline, so that the caller still hears why no server could be chosen.
    client.server_selection_timeout.get_or_insert(deadline.mul_f32(0.9));
    client.connect_timeout.get_or_insert((*deadline).clamp(Duration::from_secs(1), Duration::from_secs(10)));
    client.max_idle_time.get_or_insert(IDLE);
    if let Some(concern) = &options.write_concern {
        client.write_concern = Some(write_concern(concern));
    }
    let may_lag = client.selection_criteria.as_ref().is_some_and(|criteria| *criteria != super::primary());
    let name = options.database.clone().or_else(|| client.default_database.clone());
    let database = Client::with_options(client)?.database(name.as_deref().unwrap_or("test"));
    let sessions = database.collection(&options.collection);
    Ok(Handles { database, sessions, may_lag })
}
