//! Looks at a MongoDB collection: its indexes, a sample of its documents, and where else sessions might be.
//! Tests: `tests/it/doctor.rs` over a real mongod.

mod documents;
mod index;

pub use index::IndexState;

use super::super::error::Kind;
use super::super::mongo::door;
use super::super::seal::Seal;
use super::super::{MongoOptions, StoreOptions, WriteConcernOptions};
use super::sample::shown;
use super::{Facts, LONGEST_QUESTION, SHORTEST_PATIENCE, Survey, SurveyError, SurveyPlan};
use bson::raw::RawDocument;
use bson::{RawDocumentBuf, doc};
use mongodb::error::Error;
use mongodb::options::{ClientOptions, ReadPreference, SelectionCriteria};
use mongodb::{Client, Collection, Database};
use std::collections::BTreeMap;
use std::time::Instant;

/// What only MongoDB has.
#[derive(Debug, Clone)]
pub struct MongoFacts {
    /// The server's version.
    pub version: String,
    /// One server, several, or a cluster.
    pub topology: Topology,
    /// The servers of the URL, without user and password.
    pub hosts: Vec<String>,
    /// Where it looked.
    pub database: String,
    /// Did the URL or `store.database` name the database? Else it is the driver's default, `test`.
    pub database_is_named: bool,
    /// Where it looked.
    pub collection: String,
    /// Does the collection exist? `None` without the right to ask.
    pub exists: Option<bool>,
    /// Other collections that hold sessions (`database.collection`), looked for when this one is empty.
    pub elsewhere: Vec<String>,
    /// Why the documents cannot be read.
    pub unreadable: Option<String>,
    /// The index on `expires`, or why the indexes cannot be listed.
    pub index: Result<IndexState, String>,
    /// TTL indexes on other fields: they remove sessions, too.
    pub other_ttl: Vec<String>,
    /// Types of `expires`, `missing` among them.
    pub expires: BTreeMap<&'static str, usize>,
    /// Documents that expired more than ten minutes ago and are still stored.
    pub overdue: usize,
    /// Documents with `lastModified`, `createdAt`, `updatedAt`.
    pub dated: [usize; 3],
    /// The write concern in force here, when it is not the server's default.
    pub write_concern: Option<WriteConcernOptions>,
    /// The URL sends reads to secondaries.
    pub reads_secondaries: bool,
}

/// What kind of deployment answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Topology {
    Standalone,
    ReplicaSet(String),
    Sharded,
}

/// Other collections that are looked into.
const MOST_COLLECTIONS: usize = 50;

pub(super) async fn survey(
    options: &MongoOptions,
    store: &StoreOptions,
    plan: &SurveyPlan,
) -> Result<Survey, SurveyError> {
    let visit = Visit::begin(options, store, plan).await?;
    let mut facts = visit.deployment().await?;
    let names = visit.collections(&visit.database).await.ok();
    facts.exists = names.as_ref().map(|names| names.contains(&options.collection));
    (facts.index, facts.other_ttl) = visit.indexes().await;
    let mut survey = Survey::of(Facts::Memory);
    match visit.sessions.estimated_document_count().max_time(LONGEST_QUESTION).await {
        Ok(total) => survey.total = Some(total),
        Err(error) => facts.unreadable = Some(visit.explain(&error)),
    }
    if facts.unreadable.is_none() {
        visit.look(&mut survey, &mut facts).await;
    }
    if survey.sample.looked_at == 0 && facts.unreadable.is_none() {
        facts.elsewhere = visit.elsewhere(names.unwrap_or_default()).await;
    }
    survey.facts = Facts::Mongodb(Box::new(facts));
    Ok(survey)
}

/// The first of these `_id`s that a document has.
pub(super) async fn which_exists(
    options: &MongoOptions,
    store: &StoreOptions,
    ids: &[String],
) -> Option<String> {
    let plan = SurveyPlan { sample: 0, hidden: Vec::new(), now: 0 };
    let visit = Visit::begin(options, store, &plan).await.ok()?;
    let wanted = doc! { "_id": { "$in": ids } };
    let found =
        visit.sessions.find_one(wanted).projection(doc! { "_id": 1 }).max_time(LONGEST_QUESTION).await;
    found.ok()??.get_str("_id").ok().map(str::to_owned)
}

/// One look at one collection.
struct Visit<'a> {
    options: &'a MongoOptions,
    plan: &'a SurveyPlan,
    max_payload: usize,
    client: Client,
    database: Database,
    sessions: Collection<RawDocumentBuf>,
    settings: ClientOptions,
    /// The keys of `store.crypto`.
    seal: Option<Seal>,
}

impl<'a> Visit<'a> {
    async fn begin(
        options: &'a MongoOptions,
        store: &StoreOptions,
        plan: &'a SurveyPlan,
    ) -> Result<Self, SurveyError> {
        let failed = |error: &Error| failure(&options.url, error);
        let mut settings = ClientOptions::parse(&options.url).await.map_err(|error| failed(&error))?;
        settings.app_name.get_or_insert_with(|| "cloakroom doctor".to_owned());
        settings.server_selection_timeout.get_or_insert(store.deadline.max(SHORTEST_PATIENCE));
        settings.connect_timeout.get_or_insert(SHORTEST_PATIENCE);
        let client = Client::with_options(settings.clone()).map_err(|error| failed(&error))?;
        let name = options.database.clone().or_else(|| settings.default_database.clone());
        let database = client.database(name.as_deref().unwrap_or("test"));
        let sessions = database.collection(&options.collection);
        let seal = options.crypto.as_ref().map(|crypto| Seal::new(crypto)).transpose();
        let seal = seal.map_err(SurveyError::Refused)?;
        Ok(Self { options, plan, max_payload: store.max_payload, client, database, sessions, settings, seal })
    }

    /// The first questions: a server that does not answer them is not there.
    async fn deployment(&self) -> Result<MongoFacts, SurveyError> {
        let asked = self.database.run_command(doc! { "hello": 1 });
        let hello = asked.await.map_err(|error| failure(&self.options.url, &error))?;
        let topology = match hello.get_str("setName") {
            Ok(name) => Topology::ReplicaSet(shown(name)),
            Err(_) if hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid") => Topology::Sharded,
            Err(_) => Topology::Standalone,
        };
        let build = self.database.run_command(doc! { "buildInfo": 1 }).await.unwrap_or_default();
        Ok(MongoFacts {
            version: shown(build.get_str("version").unwrap_or("of unknown version")),
            topology,
            hosts: self.settings.hosts.iter().map(ToString::to_string).collect(),
            database: self.database.name().to_owned(),
            database_is_named: self.options.database.is_some() || self.settings.default_database.is_some(),
            collection: self.options.collection.clone(),
            exists: None,
            elsewhere: Vec::new(),
            unreadable: None,
            index: Ok(IndexState::Missing),
            other_ttl: Vec::new(),
            expires: BTreeMap::new(),
            overdue: 0,
            dated: [0; 3],
            write_concern: self.write_concern(),
            reads_secondaries: self.settings.selection_criteria.as_ref().is_some_and(|criteria| {
                matches!(criteria, SelectionCriteria::ReadPreference(wish) if !matches!(wish, ReadPreference::Primary))
            }),
        })
    }

    /// `store.write_concern`, else that of the URL.
    fn write_concern(&self) -> Option<WriteConcernOptions> {
        use super::super::Acknowledge;
        use mongodb::options::Acknowledgment;
        self.options.write_concern.clone().or_else(|| {
            let concern = self.settings.write_concern.as_ref()?;
            let w = concern.w.as_ref().and_then(|w| match w {
                Acknowledgment::Nodes(nodes) => Some(Acknowledge::Nodes(*nodes)),
                Acknowledgment::Majority => Some(Acknowledge::Majority),
                Acknowledgment::Custom(name) => Some(Acknowledge::Named(name.clone())),
                _ => None,
            });
            Some(WriteConcernOptions { w, journal: concern.journal, timeout: concern.w_timeout })
        })
    }

    /// The names of a database's collections, without views.
    async fn collections(&self, database: &Database) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        let mut cursor = database
            .run_cursor_command(doc! {
                "listCollections": 1, "nameOnly": true, "authorizedCollections": true, "filter": { "type": "collection" },
            })
            .await?;
        while cursor.advance().await? {
            if let Ok(name) = cursor.current().get_str("name") {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// Collections that hold sessions: of this database, then those of the same name in other databases.
    async fn elsewhere(&self, names: Vec<String>) -> Vec<String> {
        let mut found = Vec::new();
        let mut places: Vec<(Database, String)> = names
            .into_iter()
            .filter(|name| *name != self.options.collection)
            .map(|name| (self.database.clone(), name))
            .collect();
        let databases = self.client.list_database_names().authorized_databases(true).await;
        for name in databases.unwrap_or_default() {
            if name != self.database.name() && !["admin", "local", "config"].contains(&name.as_str()) {
                places.push((self.client.database(&name), self.options.collection.clone()));
            }
        }
        let until = Instant::now() + LONGEST_QUESTION;
        for (database, name) in places.into_iter().take(MOST_COLLECTIONS) {
            if Instant::now() > until {
                break;
            }
            let collection = database.collection::<RawDocumentBuf>(&name);
            let newest =
                collection.find_one(doc! {}).sort(doc! { "$natural": -1 }).max_time(LONGEST_QUESTION);
            if newest.await.ok().flatten().is_some_and(|document| is_session(&document)) {
                found.push(format!("{}.{}", shown(database.name()), shown(&name)));
            }
        }
        found
    }

    fn explain(&self, error: &Error) -> String {
        door::explain(&self.options.url, error).1
    }
}

fn failure(url: &str, error: &Error) -> SurveyError {
    match door::explain(url, error) {
        (Kind::Unreachable | Kind::Timeout | Kind::Overloaded, why) => SurveyError::Unreachable(why),
        (Kind::Refused | Kind::Conflict | Kind::Unstorable, why) => SurveyError::Refused(why),
    }
}

fn is_session(document: &RawDocument) -> bool {
    let has = |field: &str| matches!(document.get(field), Ok(Some(_)));
    has("session") && has("expires")
}
