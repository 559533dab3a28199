"""Tells a webhook when a judge has drifted, a run has failed, or a night went by without a refresh.

    python infra/automations.py https://hooks.slack.com/services/…

Makes three automations on the Prefect server at $PREFECT_API_URL, or renews them. What is sent is
the JSON that Slack, Mattermost and Rocket.Chat take: {"text": "…"}. An example: change it as you
like, here or in the UI.
"""

import sys
from contextlib import suppress
from datetime import timedelta
from typing import Any

from prefect.automations import Automation
from prefect.blocks.webhook import Webhook
from prefect.events.actions import CallWebhook
from prefect.events.schemas.automations import EventTrigger, Posture

TAGGED = {"prefect.resource.id": "prefect.tag.precept", "prefect.resource.role": "tag"}
"""Every run of a deployment of ours."""
TRIGGERS = {
    "precept: the judge has drifted": (
        EventTrigger(expect={"precept.drift"}, posture=Posture.Reactive, threshold=1),
        "{{ event.payload.recipe }} is held for approval: {{ event.payload.alarm }}",
    ),
    "precept: a run has failed": (
        EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in ("Failed", "Crashed", "TimedOut")},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related=TAGGED,
            posture=Posture.Reactive,
            threshold=1,
        ),
        "{{ flow_run.name }}: {{ flow_run.state.name }}. {{ flow_run.state.message }}",
    ),
    "precept: no refresh since yesterday": (
        EventTrigger(
            expect={"prefect.flow-run.Completed"},
            match_related={
                "prefect.resource.name": "refresh-nightly*",
                "prefect.resource.role": "deployment",
            },
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(hours=26),
        ),
        "no nightly refresh has completed for 26 hours",
    ),
}


def main(url: str) -> None:
    """Makes the automations, with a block that holds the webhook's address as a secret."""
    block_id = Webhook(url=url).save("precept", overwrite=True)
    for name, (trigger, text) in TRIGGERS.items():
        payload = f'{{"text": {{% filter tojson %}}{text}{{% endfilter %}}}}'
        action = CallWebhook(block_document_id=block_id, payload=payload)
        made = Automation(name=name, trigger=trigger, actions=[action], tags=["precept"])
        with suppress(ValueError):  # there is none of that name
            old: Any = Automation.read(name=name)
            old.delete()
        made.create()
        print(name)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("give the address of one webhook, as https://hooks.slack.com/services/…")
    main(sys.argv[1])
