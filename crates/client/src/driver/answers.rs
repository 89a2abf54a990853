//! What the server answers, to registrations, messages and reports.

use std::time::Duration;

use coap::{Code, ExchangeId, Response};
use message::{DecodeLimits, DeliveryStatus, ErrorBody, FailureCause, MessageResponse};
use tokio::time::Instant;

use super::{AWAY_MAX, Driver, Ending, Link, Phase};
use crate::{
    error::ClientError,
    journal::Record,
    outbound::Outcome,
    requests::{Purpose, Request},
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
                if let Some((number, request)) = self.requests.take(exchange) {
                    self.on_request_response(number, request, response);
                }
            }
        }
    }

    fn on_registration_response(&mut self, response: Option<Response>) {
        match response {
            Some(response) if response.code.is_success() => self.registered(),
            Some(response) => {
                let refusal = Refusal::of(&response);
                if refusal.cause == FailureCause::AuthenticationExpired.as_str() {
                    self.keys.must_renew = true;
                }
                let pause = refusal.retry_after.unwrap_or_default();
                self.disconnect(refusal.into_error(), pause);
            }
            None => self.disconnect(ClientError::Protocol("to the registration".into()), Duration::ZERO),
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

    fn on_request_response(&mut self, number: u64, request: Request<ExchangeId>, response: Option<Response>) {
        let Some(response) = response else {
            self.answer(request.purpose, Err(ClientError::Protocol("to a message".into())));
            return;
        };
        if response.code.is_success() {
            let outcome = outcome(&response, &self.decode_limits());
            self.answer(request.purpose, outcome);
            return;
        }
        let refusal = Refusal::of(&response);
        if response.code == Code::UNAUTHORIZED {
            // The server knows no registration on this connection any more, or wants other keys.
            self.keys.must_renew |= refusal.cause == FailureCause::AuthenticationExpired.as_str();
            self.requests.retry(number, request, Instant::now(), refusal.cause.clone());
            self.disconnect(refusal.into_error(), Duration::ZERO);
        } else if let Some(pause) = refusal.retry_after {
            // Spread out: whoever was refused in the same moment would come back in the same moment.
            let pause = match request.purpose {
                Purpose::Message { .. } => pause,
                // Nobody waits for a report: one that is refused again and again is offered more and more rarely.
                Purpose::Report(_) => self.rarely(pause, request.postponements),
            };
            let when = Instant::now() + pause.mul_f64(1.0 + rand::random::<f64>() / 2.0);
            self.requests.retry(number, request, when, refusal.cause);
        } else {
            self.answer(request.purpose, Ok(Outcome::Failed(refusal.cause)));
        }
    }

    fn rarely(&self, pause: Duration, postponements: u32) -> Duration {
        pause.saturating_mul(1 << postponements.min(16)).min(self.config.limits.backoff_max()).max(pause)
    }

    fn answer(&mut self, purpose: Purpose, result: Result<Outcome, ClientError>) {
        match purpose {
            // The application may have stopped waiting.
            Purpose::Message { answer, .. } => drop(answer.send(result)),
            Purpose::Report(key) => {
                if !matches!(result, Ok(Outcome::Delivered | Outcome::Stored)) {
                    tracing::warn!(message_id = %key.message_id, ?result, "a delivery status report did not reach its recipient");
                }
                if let Some(journal) = &mut self.journal {
                    journal.write(Record::Reported { key });
                }
            }
        }
    }

    pub(super) fn decode_limits(&self) -> DecodeLimits {
        DecodeLimits {
            message_octets_max: self.config.limits.message_octets_max,
            payload_octets_max: self.config.limits.payload_octets_max,
            ..DecodeLimits::default()
        }
    }
}

/// Reads a MSGRESP. An answer of success without one, or without a status, says delivered.
fn outcome(response: &Response, limits: &DecodeLimits) -> Result<Outcome, ClientError> {
    if response.payload.is_empty() {
        return Ok(Outcome::Delivered);
    }
    let answer =
        MessageResponse::decode(&response.payload, limits).map_err(|error| ClientError::Protocol(error.to_string()))?;
    Ok(match answer.status {
        None => Outcome::Delivered,
        Some(DeliveryStatus::Stored) => Outcome::Stored,
        Some(DeliveryStatus::Failed) => Outcome::Failed(answer.failure_cause.unwrap_or_default()),
        Some(DeliveryStatus::Other(status)) => Outcome::Other(status),
    })
}

/// A response that says no.
struct Refusal {
    code: Code,
    cause: String,
    /// When to come back, if that may help.
    retry_after: Option<Duration>,
}

impl Refusal {
    fn of(response: &Response) -> Self {
        let cause = ErrorBody::decode(&response.payload, &DecodeLimits::default())
            .ok()
            .and_then(|body| body.failure_cause)
            .unwrap_or_else(|| response.code.to_string());
        let temporary = matches!(response.code, Code::SERVICE_UNAVAILABLE | Code::TOO_MANY_REQUESTS);
        let asked = response.max_age.map(|seconds| Duration::from_secs(seconds.into()).min(AWAY_MAX));
        Self { code: response.code, cause, retry_after: temporary.then(|| asked.unwrap_or(RETRY_AFTER)) }
    }

    fn into_error(self) -> ClientError {
        ClientError::RegistrationRefused {
            code: self.code.to_string(),
            // What the server says about itself may pass, and about the keys may be cured by others.
            temporary: self.code.class() == 5 || self.retry_after.is_some() || self.code == Code::UNAUTHORIZED,
            cause: self.cause,
        }
    }
}
