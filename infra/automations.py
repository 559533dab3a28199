"""Posts to a webhook if a judge drifts, a run fails, or a night passes without a refresh.

    python infra/automations.py https://hooks.slack.com/services/…

Creates three automations on the Prefect server at $PREFECT_API_URL, and replaces those of the same
names. The message is JSON that Slack, Mattermost and Rocket.Chat accept: {"text": "…"}. This file
is an example: change the automations here or in the UI.
"""

import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import EventTrigger, Posture

OF_PRECEPT = {"prefect.resource.id": "prefect.tag.precept", "prefect.resource.role": "tag"}
"""Resource that all runs of Precept's deployments are related to."""


class Notice(NamedTuple):
    """A condition, and the text to post when it is met."""

    trigger: EventTrigger
    text: str
    """Jinja, filled from the event."""


NOTICES = {
    "precept: the judge has drifted": Notice(
        EventTrigger(expect={"precept.drift"}, posture=Posture.Reactive, threshold=1),
        "{{ event.payload.recipe }} is held for approval: {{ event.payload.alarm }}",
    ),
    "precept: a run has failed": Notice(
        EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=OF_PRECEPT,
            posture=Posture.Reactive,
            threshold=1,
        ),
        "{{ flow_run.name }}: {{ flow_run.state.name }}. {{ flow_run.state.message }}",
    ),
    "precept: no refresh since yesterday": Notice(
        EventTrigger(
            expect={"prefect.flow-run.Completed"},
            match_related={
                "prefect.resource.name": "refresh-nightly*",
                "prefect.resource.role": "deployment",
            },
            posture=Posture.Proactive,
            threshold=1,
            # A day, and time for a long night.
            within=timedelta(hours=26),
        ),
        "no nightly refresh has completed for 26 hours",
    ),
}
"""By the name of the automation."""


def main(url: str) -> None:
    """Creates the automations, and a block that keeps the webhook's address as a secret."""
    block_id = Webhook(url=url).save("precept", overwrite=True)
    for name, notice in NOTICES.items():
        # tojson escapes a state's message, which may hold quotes and line breaks.
        payload = f'{{"text": {{% filter tojson %}}{notice.text}{{% endfilter %}}}}'
        action = CallWebhook(block_document_id=block_id, payload=payload)
        automation = Automation(
            name=name, trigger=notice.trigger, actions=[action], tags=["precept"]
        )
        with suppress(ValueError):  # raised if the server has no automation of that name
            old: Any = Automation.read(name=name)
            old.delete()
        automation.create()
        print(name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give one webhook's address, such as https://hooks.slack.com/services/…")
    main(sys.argv[1])
