//! A sample of the documents, one after the other; only counters stay. Tests: `tests/it/doctor.rs`.

use super::super::super::TOO_LARGE;
use super::super::super::mongo::door;
use super::super::super::seal::{Opened, looks_sealed};
use super::super::shape::{SealFormat, seal_of};
use super::super::{LONGEST_QUESTION, Sample, Survey};
use super::{MongoFacts, Visit};
use bson::raw::{RawBsonRef, RawDocument};
use bson::{RawDocumentBuf, doc};
use mongodb::Cursor;
use std::time::{Duration, Instant};

/// Time for the whole sample.
const SAMPLE_TIME: Duration = Duration::from_secs(20);
/// The TTL monitor comes every minute; this is late.
const OVERDUE_MILLIS: i64 = 600_000;
/// Each of kruptein's texts costs some hundredths of a second.
const MOST_KRUPTEIN: usize = 50;
/// What a stored text may hold beyond `limits.session`: as in `mongo::document`.
const COOKIE_ALLOWANCE: usize = 4096;
/// How much longer a text may be sealed: as in `mongo::document`.
const SEALED_FACTOR: usize = 8;

impl Visit<'_> {
    /// The sample. At random where that is cheap for the server, else everything, else the oldest and the newest.
    pub(super) async fn look(&self, survey: &mut Survey, facts: &mut MongoFacts) {
        let wanted = self.plan.sample;
        let size = i64::try_from(wanted).unwrap_or(i64::MAX);
        let total = survey.total.unwrap_or(u64::MAX);
        let until = Instant::now() + SAMPLE_TIME;
        // Below 5 % the server walks a random cursor, above it would sort the whole collection.
        if u64::try_from(wanted).unwrap_or(u64::MAX) < total / 20 {
            let pipeline = [doc! { "$sample": { "size": size } }];
            let sampled = self.sessions.aggregate(pipeline).with_type::<RawDocumentBuf>();
            match sampled.max_time(LONGEST_QUESTION).batch_size(100).await {
                Ok(cursor) => return self.walk(cursor, wanted, until, survey, facts).await,
                Err(error) => survey.cut_short = Some(self.explain(&error)),
            }
        }
        let everything = total <= u64::try_from(wanted).unwrap_or(u64::MAX);
        let ends =
            if everything { vec![(1, wanted)] } else { vec![(-1, wanted.div_ceil(2)), (1, wanted / 2)] };
        for (direction, limit) in ends.into_iter().filter(|(_, limit)| *limit > 0) {
            let found = self
                .sessions
                .find(doc! {})
                .sort(doc! { "$natural": direction })
                .limit(i64::try_from(limit).unwrap_or(i64::MAX))
                .max_time(LONGEST_QUESTION)
                .batch_size(100)
                .await;
            match found {
                Ok(cursor) => self.walk(cursor, limit, until, survey, facts).await,
                Err(error) => return facts.unreadable = Some(self.explain(&error)),
            }
        }
    }

    async fn walk(
        &self,
        mut cursor: Cursor<RawDocumentBuf>,
        limit: usize,
        until: Instant,
        survey: &mut Survey,
        facts: &mut MongoFacts,
    ) {
        for _ in 0..limit {
            match cursor.advance().await {
                Ok(true) => self.count(cursor.current(), &mut survey.sample, facts).await,
                Ok(false) => return,
                Err(error) => return survey.cut_short = Some(self.explain(&error)),
            }
            if Instant::now() > until {
                return survey.cut_short = Some(format!("{} s have passed", SAMPLE_TIME.as_secs()));
            }
        }
    }

    async fn count(&self, document: &RawDocument, sample: &mut Sample, facts: &mut MongoFacts) {
        sample.looked_at += 1;
        let prefix = self.options.transform_id.as_ref().map_or("", |transform| transform.prefix.as_str());
        let id = match document.get("_id") {
            Ok(Some(RawBsonRef::String(id))) => sample.id(id, prefix),
            Ok(Some(other)) => sample.odd_id(type_name(other)),
            Ok(None) | Err(_) => sample.odd_id("missing"),
        };
        let expires = document.get("expires").ok().flatten();
        *facts.expires.entry(expires.map_or("missing", type_name)).or_default() += 1;
        let moment = expires.and_then(RawBsonRef::as_datetime).map(bson::DateTime::timestamp_millis);
        facts.overdue += usize::from(moment.is_some_and(|at| at < self.plan.now - OVERDUE_MILLIS));
        for (count, field) in facts.dated.iter_mut().zip(["lastModified", "createdAt", "updatedAt"]) {
            *count += usize::from(matches!(document.get(field), Ok(Some(_))));
        }
        self.session(document, &id, sample).await;
    }

    async fn session(&self, document: &RawDocument, id: &str, sample: &mut Sample) {
        let longest = self.max_payload.saturating_add(COOKIE_ALLOWANCE);
        let hidden = &self.plan.hidden;
        match document.get("session") {
            Ok(Some(RawBsonRef::String(text))) => {
                let Some(format) = seal_of(text) else {
                    if let Some(why) = self.closed(text, longest) {
                        return sample.unreadable.add(&why, id);
                    }
                    sample.texts += 1;
                    return sample.session(text, hidden, self.max_payload, id);
                };
                *sample.sealed.entry(format).or_default() += 1;
                match self.open(text, format, sample).await {
                    Some(Ok(text)) => {
                        sample.opened += 1;
                        sample.session(&text, hidden, self.max_payload, id);
                    }
                    Some(Err(why)) => sample.unopened.entry(format).or_default().add(&why, id),
                    None => {}
                }
            }
            Ok(Some(RawBsonRef::Document(object))) => {
                sample.objects += 1;
                match door::object_json(object, longest) {
                    Ok(text) => sample.session(&text, hidden, self.max_payload, id),
                    Err(why) => sample.unreadable.add(&why, id),
                }
            }
            Ok(Some(other)) => sample.unreadable.add(&format!("`session` is a {}", type_name(other)), id),
            Ok(None) => sample.unreadable.add("no field `session`", id),
            Err(_) => sample.unreadable.add("broken BSON", id),
        }
    }

    /// What the sidecar says of a text that is neither JSON nor whole enough to be told by its looks: sealed and cut short, mostly.
    fn closed(&self, text: &str, longest: usize) -> Option<String> {
        // As `mongo::document` tells plain from sealed.
        if text.trim_start().starts_with('{') {
            return None;
        }
        if text.len() > longest.saturating_mul(SEALED_FACTOR) {
            return Some(TOO_LARGE.to_owned());
        }
        match &self.seal {
            Some(seal) => seal.open(text).err(),
            None => looks_sealed(text).map(str::to_owned),
        }
    }

    /// What is in a sealed text; `None` when nobody tried.
    async fn open(&self, text: &str, format: SealFormat, sample: &Sample) -> Option<Result<String, String>> {
        let seal = self.seal.as_ref()?;
        if format == SealFormat::Kruptein && sample.sealed[&format] > MOST_KRUPTEIN {
            return None;
        }
        match seal.open(text) {
            Ok(Opened::Text(text)) => Some(Ok(text)),
            Ok(Opened::Locked(locked)) => seal.kruptein()?.open(locked, || true).await,
            Err(why) => Some(Err(why)),
        }
    }
}

fn type_name(value: RawBsonRef<'_>) -> &'static str {
    match value {
        RawBsonRef::DateTime(_) => "date",
        RawBsonRef::String(_) => "string",
        RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Double(_) | RawBsonRef::Decimal128(_) => {
            "number"
        }
        RawBsonRef::Null | RawBsonRef::Undefined => "null",
        RawBsonRef::Document(_) => "object",
        RawBsonRef::Array(_) => "array",
        RawBsonRef::ObjectId(_) => "ObjectId",
        RawBsonRef::Boolean(_) => "boolean",
        RawBsonRef::Binary(_) => "binary",
        RawBsonRef::Timestamp(_) => "timestamp",
        _ => "value of a rare type",
    }
}
