//! Scopes of a service and its operations.

use http::Method;

use crate::token::AccessTokenClaims;

/// A service and the finer scopes of its operations.
#[derive(Debug)]
pub struct ServiceScopes {
    /// The service's name, which is its scope, for example `naanf-akma`.
    pub service: &'static str,
    /// Operations that have scopes of their own. For others, the service's is enough.
    pub operations: &'static [OperationScope],
}

/// An operation and the scopes of its own.
#[derive(Debug)]
pub struct OperationScope {
    /// HTTP method.
    pub method: &'static str,
    /// Path from the root, variables as `{name}`; their names do not matter.
    pub path: &'static str,
    /// Any of these allows the operation, beside the service's own scope.
    pub scopes: &'static [&'static str],
}

impl ServiceScopes {
    /// The operation of that method and path template.
    #[must_use]
    pub fn operation(&self, method: &Method, path: &str) -> Option<&OperationScope> {
        self.operations.iter().find(|operation| operation.method == method.as_str() && same(operation.path, path))
    }

    /// Whether a token with these scopes allows the operation.
    ///
    /// The service's own scope is always needed, as in every alternative of the OpenAPI files. A token that names finer
    /// scopes of this service besides is good for the operations they belong to and no others (TS 33.501 clause
    /// 13.4.1.1.2: additional scopes match the requested operation).
    #[must_use]
    pub fn allows(&self, operation: Option<&OperationScope>, claims: &AccessTokenClaims) -> bool {
        let of_service = |scope: &str| scope.strip_prefix(self.service).is_some_and(|rest| rest.starts_with(':'));
        let own = operation.map_or(&[][..], |operation| operation.scopes);
        claims.scopes().any(|scope| scope == self.service)
            && (own.is_empty() || claims.scopes().any(|scope| own.contains(&scope)) || !claims.scopes().any(of_service))
    }

    /// The narrowest scopes that would do.
    #[must_use]
    pub fn wanted(&self, operation: Option<&OperationScope>) -> String {
        match operation.and_then(|operation| operation.scopes.first()) {
            Some(own) => format!("{} {own}", self.service),
            None => self.service.to_owned(),
        }
    }
}

fn same(template: &str, path: &str) -> bool {
    let variable = |segment: &str| segment.starts_with('{');
    let (mut ours, mut theirs) = (template.split('/'), path.split('/'));
    loop {
        match (ours.next(), theirs.next()) {
            (None, None) => return true,
            (Some(one), Some(other)) if one == other || (variable(one) && variable(other)) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::services::{NAANF_AKMA, NUDM_UEAU, SS_UPR, SUPI_ACCESS};
    use crate::token::Audience;

    fn allowed(service: &ServiceScopes, method: &Method, path: &str, scope: &str) -> bool {
        let claims = AccessTokenClaims::new("i", "s", Audience::NfType("AANF".to_owned()), scope, 7);
        service.allows(service.operation(method, path), &claims)
    }

    #[test]
    fn the_scope_of_the_service_allows_all_its_operations() {
        for operation in NAANF_AKMA.operations {
            assert!(allowed(&NAANF_AKMA, &Method::POST, operation.path, "other naanf-akma"));
            assert!(!allowed(&NAANF_AKMA, &Method::POST, operation.path, "naanf-akm naanf-akmaa"));
            assert!(!allowed(&NAANF_AKMA, &Method::POST, operation.path, ""));
        }
        assert!(allowed(&SS_UPR, &Method::GET, "/ss-upr/v1/val-services", "ss-upr"));
    }

    #[test]
    fn a_finer_scope_allows_its_operation_only_and_not_without_the_service() {
        let (register, retrieve) = ("/naanf-akma/v1/register-anchorkey", "/naanf-akma/v1/retrieve-applicationkey");
        let finer = "naanf-akma naanf-akma:applicationkeyget";
        assert!(allowed(&NAANF_AKMA, &Method::POST, retrieve, finer));
        assert!(!allowed(&NAANF_AKMA, &Method::POST, register, finer));
        assert!(allowed(&NAANF_AKMA, &Method::POST, retrieve, &format!("naanf-akma {SUPI_ACCESS}")));
        assert!(!allowed(&NAANF_AKMA, &Method::POST, retrieve, "naanf-akma:applicationkeyget"));
        assert!(allowed(&NAANF_AKMA, &Method::POST, register, "naanf-akma nausf-auth:ue-authentications"));
    }

    #[test]
    fn names_of_path_variables_do_not_matter() {
        let path = "/nudm-ueau/v1/{supi_or_suci}/security-information/generate-auth-data";
        assert!(NUDM_UEAU.operation(&Method::POST, path).is_some());
        assert!(NUDM_UEAU.operation(&Method::GET, path).is_none());
        assert!(NUDM_UEAU.operation(&Method::POST, "/nudm-ueau/v1/security-information/generate-auth-data").is_none());
    }
}
