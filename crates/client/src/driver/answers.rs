//! What the server answers, to registrations, messages and reports.

use std::time::Duration;

use coap::{Code, ExchangeId, Response};
use message::{
    DecodeLimits, DeliveryStatus, ErrorBody, FailureCause, IndividualResponse, MessageId, MessageResponse,
    TopicSubscriptionResponse,
};
use tokio::time::Instant;

use super::{AWAY_MAX, Driver, Ending, Link, Phase};
use crate::{
    error::ClientError,
    outbound::Outcome,
    requests::{Place, Purpose},
    subscriptions::Now,
};

/// Pause before coming back when the server asks to and does not say when.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Driver {
    /// `response` is none if it could not be read.
    pub(super) fn on_response(&mut self, exchange: ExchangeId, response: Option<Response>) {
        match (&self.link, &self.ending) {
            (Link::Up { phase: Phase::Registering { exchange: registration, .. }, .. }, _)
                if *registration == exchange =>
            {
                self.on_registration_response(response);
            }
            (_, Ending::Deregister { exchange: Some(deregistration), .. }) if *deregistration == exchange => {
                self.on_deregistration_response(response);
            }
            _ => {
                // Nothing is found if the application stopped waiting in the meantime.
                if let Some(place) = self.requests.find(exchange) {
                    self.on_request_response(place, response);
                }
            }
        }
    }

    fn on_registration_response(&mut self, response: Option<Response>) {
        match response {
            Some(response) if response.code.is_success() => {
                self.live_for(&response);
                self.registered();
            }
            Some(response) => {
                let refusal = Refusal::of(&response);
                if refusal.is_about_keys() {
                    self.keys.expired();
                }
                let pause = refusal.retry_after.unwrap_or_default();
                self.disconnect(refusal.into_error(), pause);
            }
            None => self.disconnect(ClientError::Protocol("to the registration".into()), Duration::ZERO),
        }
    }

    /// How long the keys at hand are good, as a registration's answer says.
    pub(super) fn live_for(&mut self, response: &Response) {
        if let Some(seconds) = response.max_age {
            self.keys.live_for(Duration::from_secs(seconds.into()), Instant::now(), rand::random());
        }
    }

    fn on_deregistration_response(&mut self, response: Option<Response>) {
        let result = match response {
            Some(response) if response.code.is_success() => Ok(()),
            // There was no registration left to withdraw.
            Some(response) if response.code == Code::UNAUTHORIZED => Ok(()),
            Some(response) => Err(Refusal::of(&response).into_error()),
            None => Err(ClientError::Protocol("to the de-registration".into())),
        };
        self.deregistered(result);
    }

    fn on_request_response(&mut self, place: Place, response: Option<Response>) {
        let Some(response) = response else {
            self.fail(place.number, &ClientError::Protocol("to a message".into()));
            return;
        };
        if response.code.is_success() {
            self.on_success(place, response);
            return;
        }
        let refusal = Refusal::of(&response);
        if response.code == Code::UNAUTHORIZED {
            // The server knows no registration on this connection any more, or wants other keys.
            if refusal.is_about_keys() {
                self.keys.expired();
            }
            self.requests.retry(place, Instant::now(), refusal.cause.clone());
            self.disconnect(refusal.into_error(), Duration::ZERO);
        } else if let Some(pause) = refusal.retry_after {
            // Spread out: whoever was refused in the same moment would come back in the same moment.
            let pause = match self.requests.report_postponements(place.number) {
                None => pause,
                // Nobody waits for a report: one that is refused again and again is offered more and more rarely.
                Some(postponements) => self.rarely(pause, postponements),
            };
            let when = Instant::now() + pause.mul_f64(1.0 + rand::random::<f64>() / 2.0);
            self.requests.retry(place, when, refusal.cause);
        } else if place.segment.is_some() {
            self.segment_answered(place, Outcome::Failed(refusal.cause));
        } else if !(is_about_form(&response) && self.requests.split(place.number)) {
            // What the server does not understand or finds too large as one, it may take one by one.
            self.on_refusal(place.number, refusal);
        }
    }

    fn on_success(&mut self, place: Place, response: Response) {
        if place.segment.is_some() {
            match read_answer(&response, &self.decode_limits()) {
                Ok(answer) => self.segment_answered(place, outcome(answer.status, answer.failure_cause)),
                Err(error) => self.fail(place.number, &error),
            }
            return;
        }
        let Some(request) = self.requests.remove(place.number) else { return };
        match request.purpose {
            Purpose::Procedure { answer, .. } => drop(answer.send(Ok(response))),
            Purpose::Renewal(topics) => {
                let answer = TopicSubscriptionResponse::decode(&response.payload, &self.decode_limits()).ok();
                let granted = answer.and_then(|answer| answer.expiration_time);
                self.subscriptions.renewed(&topics, granted, Now::get());
            }
            purpose => {
                let result = read_answer(&response, &self.decode_limits());
                self.answer(purpose, result);
            }
        }
    }

    fn on_refusal(&mut self, number: u64, refusal: Refusal) {
        let Some(request) = self.requests.remove(number) else { return };
        match request.purpose {
            Purpose::Procedure { answer, .. } => {
                // The application may have stopped waiting.
                drop(answer.send(Err(ClientError::Refused { cause: refusal.cause, temporary: false })));
            }
            Purpose::Renewal(topics) => {
                tracing::warn!(cause = %refusal.cause, topics = topics.len(), "topics cannot be subscribed to again");
                self.subscriptions.unsubscribed(&topics);
            }
            purpose => self.answer(purpose, Ok(Answer::failed(refusal.cause))),
        }
    }

    /// Notes the answer to one segment; the application waits anew for the next one.
    fn segment_answered(&mut self, place: Place, answer: Outcome) {
        let Some(index) = place.segment else { return };
        let now = Instant::now();
        let limits = &self.config.limits;
        let (deadline, kept_until) = (now + limits.send_timeout(), now + limits.segmented_kept());
        let exchanges = self.requests.segment_answered(place.number, index, answer, deadline, kept_until);
        self.cancel(exchanges);
    }

    /// Answers a request that comes to nothing.
    pub(super) fn fail(&mut self, number: u64, error: &ClientError) {
        let exchanges = self.requests.fail(number, error);
        self.cancel(exchanges);
    }

    pub(super) fn cancel(&mut self, exchanges: Vec<ExchangeId>) {
        if let Link::Up { session, .. } = &mut self.link {
            exchanges.into_iter().for_each(|exchange| session.cancel(exchange));
        }
    }

    fn rarely(&self, pause: Duration, postponements: u32) -> Duration {
        pause.saturating_mul(1 << postponements.min(16)).min(self.config.limits.backoff_max()).max(pause)
    }

    fn answer(&mut self, purpose: Purpose, result: Result<Answer, ClientError>) {
        match purpose {
            Purpose::Message(waiting) => {
                let result = result.map(|answer| outcome(answer.status, answer.failure_cause));
                // The application may have stopped waiting.
                drop(waiting.answer.send(result));
            }
            Purpose::Aggregate(parts) => {
                for part in parts {
                    let result = match &result {
                        Ok(answer) => Ok(answer.of_individual(&part.waiting.message_id)),
                        Err(error) => Err(error.clone()),
                    };
                    drop(part.waiting.answer.send(result));
                }
            }
            purpose => {
                if !result.as_ref().is_ok_and(|answer| matches!(answer.status, None | Some(DeliveryStatus::Stored))) {
                    match purpose {
                        Purpose::Report(_) => {
                            tracing::warn!(?purpose, ?result, "a delivery status report did not reach its recipient");
                        }
                        // Of a message that the server has cut itself, its originator knows nothing.
                        _ => tracing::debug!(?purpose, ?result, "nobody takes a word about segments"),
                    }
                }
                self.report_over(purpose);
            }
        }
    }
}

/// What an answer says about a message, or about several.
#[derive(Debug, Default)]
struct Answer {
    status: Option<DeliveryStatus>,
    failure_cause: Option<String>,
    individual: Vec<IndividualResponse>,
}

impl Answer {
    fn failed(cause: String) -> Self {
        Self { status: Some(DeliveryStatus::Failed), failure_cause: Some(cause), individual: Vec::new() }
    }

    /// What became of one message of an aggregate: what is said of it, or of all.
    fn of_individual(&self, message_id: &MessageId) -> Outcome {
        match self.individual.iter().find(|individual| individual.message_id == *message_id) {
            Some(individual) => outcome(individual.status.clone(), individual.failure_cause.clone()),
            None => outcome(self.status.clone(), self.failure_cause.clone()),
        }
    }
}

/// Reads a MSGRESP. An answer of success without one, or without a status, says delivered.
fn read_answer(response: &Response, limits: &DecodeLimits) -> Result<Answer, ClientError> {
    if response.payload.is_empty() {
        return Ok(Answer::default());
    }
    let MessageResponse { status, failure_cause, individual, .. } =
        MessageResponse::decode(&response.payload, limits).map_err(|error| ClientError::Protocol(error.to_string()))?;
    Ok(Answer { status, failure_cause, individual })
}

fn outcome(status: Option<DeliveryStatus>, failure_cause: Option<String>) -> Outcome {
    match status {
        None => Outcome::Delivered,
        Some(DeliveryStatus::Stored) => Outcome::Stored,
        Some(DeliveryStatus::Failed) => Outcome::Failed(failure_cause.unwrap_or_default()),
        Some(DeliveryStatus::Other(status)) => Outcome::Other(status),
    }
}

/// Whether a refusal is about how something was put, and not about what it was.
fn is_about_form(response: &Response) -> bool {
    matches!(response.code, Code::BAD_REQUEST | Code::REQUEST_ENTITY_TOO_LARGE)
}

/// A response that says no.
pub(super) struct Refusal {
    code: Code,
    cause: String,
    /// When to come back, if that may help.
    pub(super) retry_after: Option<Duration>,
}

impl Refusal {
    /// Whether others than the keys at hand are the remedy.
    pub(super) fn is_about_keys(&self) -> bool {
        self.cause == FailureCause::AuthenticationExpired.as_str()
    }

    pub(super) fn of(response: &Response) -> Self {
        let cause = ErrorBody::decode(&response.payload, &DecodeLimits::default())
            .ok()
            .and_then(|body| body.failure_cause)
            .unwrap_or_else(|| response.code.to_string());
        let temporary = matches!(response.code, Code::SERVICE_UNAVAILABLE | Code::TOO_MANY_REQUESTS);
        let asked = response.max_age.map(|seconds| Duration::from_secs(seconds.into()).min(AWAY_MAX));
        Self { code: response.code, cause, retry_after: temporary.then(|| asked.unwrap_or(RETRY_AFTER)) }
    }

    pub(super) fn into_error(self) -> ClientError {
        ClientError::RegistrationRefused {
            code: self.code.to_string(),
            // What the server says about itself may pass, and about the keys may be cured by others.
            temporary: self.code.class() == 5 || self.retry_after.is_some() || self.code == Code::UNAUTHORIZED,
            cause: self.cause,
        }
    }
}
