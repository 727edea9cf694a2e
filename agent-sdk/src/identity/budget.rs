//! The budget of an agent: spending, reserving and releasing as the agent itself.

use std::time::Duration;

use super::{Identity, IdentityError, timely};
use crate::api::v1;
use crate::api::v1::budgets_client::BudgetsClient;
use crate::random;

impl Identity {
    /// Spends from the agent's budget and from that of each agent above it; dollars are counted in millionths. The answer says what is
    /// left. Fails with [`IdentityError::Exhausted`] if one of them has less left, and then nothing was spent.
    pub async fn spend(&self, unit: v1::BudgetUnit, amount: u64) -> Result<v1::SpendResponse, IdentityError> {
        self.spend_from(0, unit, amount).await
    }

    /// Spends from a reservation of the agent, as [`Identity::reserve`] returned it.
    pub async fn spend_reserved(
        &self,
        reservation: u64,
        unit: v1::BudgetUnit,
        amount: u64,
    ) -> Result<v1::SpendResponse, IdentityError> {
        self.spend_from(reservation, unit, amount).await
    }

    async fn spend_from(&self, reservation: u64, unit: v1::BudgetUnit, amount: u64) -> Result<v1::SpendResponse, IdentityError> {
        let request =
            v1::SpendRequest { agent: String::new(), unit: unit.into(), amount, reservation, request_id: request_id()? };
        self.budgeted(async || timely(BudgetsClient::new(self.channel()).spend(request.clone())).await).await
    }

    /// Holds a part of the budgets for what may be spent in `life`, which is 10 minutes if it is `None` and an hour at most. What is not
    /// spent comes back by [`Identity::release`], when the time has passed, and when the agent ends. Fails as [`Identity::spend`] does.
    pub async fn reserve(
        &self,
        unit: v1::BudgetUnit,
        amount: u64,
        life: Option<Duration>,
    ) -> Result<v1::ReserveResponse, IdentityError> {
        let life_seconds = life.map_or(0, |life| u32::try_from(life.as_secs().max(1)).unwrap_or(u32::MAX));
        let request =
            v1::ReserveRequest { agent: String::new(), unit: unit.into(), amount, life_seconds, request_id: request_id()? };
        self.budgeted(async || timely(BudgetsClient::new(self.channel()).reserve(request.clone())).await).await
    }

    /// Gives back what is left of a reservation.
    pub async fn release(&self, reservation: u64) -> Result<v1::ReleaseResponse, IdentityError> {
        let request = v1::ReleaseRequest { reservation };
        self.budgeted(async || timely(BudgetsClient::new(self.channel()).release(request)).await).await
    }

    /// Makes a call, and once more on the new connection if a renewal was used meanwhile. The request id makes both the same spend.
    async fn budgeted<T>(&self, call: impl AsyncFn() -> Result<T, IdentityError>) -> Result<T, IdentityError> {
        self.holds()?;
        let answered = match call().await {
            Err(e) if e.is_past() => call().await,
            answered => answered,
        };
        match answered {
            Err(IdentityError::Over(over)) => Err(self.shared.end(over).into()),
            answered => answered,
        }
    }
}

/// A request id that nobody else has.
fn request_id() -> Result<String, IdentityError> {
    let random = random::bytes::<16>().map_err(|_| IdentityError::Key)?;
    Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
}
