"""The page of `precept inspect`, as marimo runs it: cells lay out what other modules find.

A cell that stops leaves its names undefined. Cells that need them and also depend on `session`
or `shown`, which change in every view, ask for their view first.
"""

import marimo

app = marimo.App(width="full", app_title="Precept", css_file="page.css")

with app.setup:
    import marimo as mo

    from warehouse.app import charts, controls, lists, panels, reader, reviewing
    from warehouse.app.desk import desk
    from warehouse.catalog import query_doc, query_names, query_text


@app.cell
def _():
    # Read again: a later snapshot, and a session on it.
    get_round, set_round = mo.state(0)
    read_again = mo.ui.button(
        label="Read again",
        tooltip="Reads the rows that runs have written since",
        on_change=lambda _: set_round(get_round() + 1),
    )
    return get_round, read_again


@app.cell
def _(get_round):
    not_read = desk().renew() if get_round() else ""
    session = desk().snapshot.session()
    return not_read, session


@app.cell
def _():
    reset = mo.ui.button(label="Reset filters")
    shown = mo.ui.switch(label="Show folded texts")
    return reset, shown


@app.cell
def _(reset, session):
    reset
    filter_controls = controls.filter_controls(session.rows("options"), desk().run)
    return (filter_controls,)


@app.cell
def _(filter_controls, not_read, read_again, reset, session, shown):
    mo.sidebar(
        [
            mo.md("## Precept"),
            mo.vstack([*filter_controls.elements.values()], gap=0.6),
            shown,
            mo.hstack([reset, read_again], justify="start"),
            mo.md(f"Read {session.snapshot.read_at:%Y-%m-%d %H:%M:%S} UTC"),
            *([panels.trouble(not_read)] if not_read else []),
        ],
        width="330px",
    )
    return


@app.cell
def _(filter_controls, session):
    filters = controls.filters_of(filter_controls.value)
    _trouble = lists.narrowed(session, filters)
    mo.stop(bool(_trouble), panels.trouble(_trouble))
    return (filters,)


@app.cell
def _():
    view = mo.ui.tabs(dict.fromkeys(controls.VIEWS, ""), value=controls.first_view(desk().run))
    return (view,)


@app.cell
def _(filters, session, view):
    filters
    mo.vstack([panels.totals(session), view])
    return


@app.cell
def _(filters, session, view):
    mo.stop(view.value != "Overview")
    filters
    panels.overview(session)
    return


@app.cell
def _(filters, session, view):
    mo.stop(view.value != "Rules")
    filters
    _rules = session.ask("citations")
    rule_table = mo.ui.table(
        lists.shown_rows(_rules.to_pylist()), selection="single", page_size=15, label="Rules"
    )
    mo.vstack(
        [
            mo.md("### Citations and acceptance by rule"),
            charts.acceptance_by_rule(_rules),
            mo.md("Select a rule to read its text."),
            rule_table,
        ]
    )
    return (rule_table,)


@app.cell
def _(rule_table, session):
    mo.stop(not rule_table.value)
    _texts = session.rule_texts([rule_table.value[0]["rule_id"]])
    mo.Html("".join(reader.rule_block(name, text) for name, text in _texts.items()))
    return


@app.cell
def _(filters, session, view):
    mo.stop(view.value != "Judges")
    filters
    panels.judges(session)
    return


@app.cell
def _(filters, session, view):
    mo.stop(view.value != "Length")
    filters
    panels.lengths(session)
    return


@app.cell
def _(session, view):
    mo.stop(view.value != "Monitors")
    panels.monitors(session)
    return


@app.cell
def _():
    order = mo.ui.dropdown(controls.reading_orders(), value=controls.ORDERS[0], label="order")
    reviewer = mo.ui.text(value=reviewing.default_name(), label="reviewer")
    num_wanted = mo.ui.number(1, 5, value=1, label="reviewers for each")
    return num_wanted, order, reviewer


@app.cell
def _(filters, num_wanted, order, reviewer, session, view):
    mo.stop(view.value != "Read")
    chains, trouble = lists.readable(
        session,
        order.value,
        reviewer=reviewer.value,
        rule=filters.rule,
        # An emptied field has no number.
        num_wanted=num_wanted.value or 1,
    )
    get_place, set_place = mo.state(0)
    get_saved, set_saved = mo.state("")
    chain_table = mo.ui.table(
        lists.shown_rows(chains),
        selection="single",
        page_size=8,
        on_change=lambda rows: set_place(rows[0]["#"] - 1) if rows else None,
    )
    mo.vstack(
        [
            mo.hstack([order, reviewer, num_wanted], justify="start"),
            panels.trouble(trouble) if trouble else chain_table,
        ]
    )
    return chains, get_place, get_saved, set_place, set_saved


@app.cell
def _(chains, get_place, set_place):
    def _move(by):
        set_place(max(0, min(len(chains) - 1, get_place() + by)))

    previous_one = mo.ui.button(
        label="Previous (←)", keyboard_shortcut="ArrowLeft", on_change=lambda _: _move(-1)
    )
    next_one = mo.ui.button(
        label="Next (→)", keyboard_shortcut="ArrowRight", on_change=lambda _: _move(1)
    )
    note = mo.ui.text(placeholder="note", full_width=True)
    return next_one, note, previous_one


@app.cell
def _(chains, get_place, note, reviewer, session, set_place, set_saved):
    def _review(decision):
        row = chains[get_place()]
        set_saved(reviewing.save(session, row, decision, reviewer=reviewer.value, note=note.value))
        set_place(min(len(chains) - 1, get_place() + 1))

    decisions = [
        mo.ui.button(label=label, kind=kind, on_change=lambda _, one=decision: _review(one))
        for decision, label, kind in (
            ("accept", "Accept", "success"),
            ("reject", "Reject", "danger"),
            ("unsure", "Unsure", "neutral"),
        )
    ]
    decisions = mo.ui.array(decisions)
    return (decisions,)


@app.cell
def _(chains, decisions, get_place, get_saved, next_one, note, previous_one, session, shown, view):
    mo.stop(view.value != "Read" or not chains)
    _place = min(get_place(), len(chains) - 1)
    mo.vstack(
        [
            mo.hstack(
                [
                    previous_one,
                    next_one,
                    mo.md(f"**{_place + 1} of {len(chains)}**"),
                    *decisions.elements,
                    note,
                ],
                justify="start",
                align="center",
            ),
            mo.Html(reader.line(get_saved())),
            mo.Html(reader.page_of_chain(session, chains[_place], shown=shown.value)),
        ]
    )
    return


@app.cell
def _(session, view):
    mo.stop(view.value != "Side by side")
    _sides = {row["side"]: row for row in session.rows("sides")}
    _names = [*_sides]
    left = mo.ui.dropdown(
        _sides, value=_names[0] if _names else None, label="left", searchable=True
    )
    right = mo.ui.dropdown(
        _sides, value=_names[-1] if _names else None, label="right", searchable=True
    )
    pair_order = mo.ui.dropdown(controls.PAIR_ORDERS, value=controls.PAIR_ORDERS[0], label="order")
    mo.hstack([left, right, pair_order], justify="start", wrap=True)
    return left, pair_order, right


@app.cell
def _(filters, left, pair_order, right, session):
    mo.stop(not left.value or not right.value, mo.md("No model has answered anything yet."))
    pairs = lists.pairs(session, left.value, right.value, order=pair_order.value, filters=filters)
    pair_table = mo.ui.table(
        lists.shown_rows(pairs),
        selection="single",
        initial_selection=[0] if pairs else None,
        page_size=8,
    )
    pair_table if pairs else mo.md("These two have no case or prompt in common.")
    return pair_table, pairs


@app.cell
def _(left, pair_table, pairs, right, session, shown, view):
    mo.stop(view.value != "Side by side" or not left.value or not right.value)
    mo.stop(not pair_table.value)
    mo.Html(reader.page_of_pair(session, pairs[pair_table.value[0]["#"] - 1], shown=shown.value))
    return


@app.cell
def _(session, view):
    mo.stop(view.value != "Rollouts")
    trainings = {row["checkpoint_id"][:12]: row for row in session.rows("rollout_steps")}
    training = mo.ui.dropdown(
        trainings, value=next(iter(trainings), None), label="training (checkpoint)"
    )
    training
    return (training,)


@app.cell
def _(session, training):
    mo.stop(not training.value, mo.md("No training has rollouts yet."))
    _steps = lists.steps(session, training.value["checkpoint_id"])
    step = mo.ui.slider(
        0,
        max(training.value["last_step"], 1),
        label="step",
        show_value=True,
        debounce=True,
        full_width=True,
    )
    rollout_order = mo.ui.dropdown(
        controls.ROLLOUT_ORDERS, value=controls.ROLLOUT_ORDERS[0], label="order"
    )
    mo.vstack(
        [
            mo.md("### Rewards over the steps"),
            charts.steps(_steps, "mean_reward", "harmful", "benign", "ambiguous", title="reward"),
            mo.md("### Tokens of reasoning, and malformed rollouts"),
            charts.steps(_steps, "reasoning_tokens", "num_malformed", title="of a step"),
            mo.hstack([rollout_order, step], widths=[1, 4]),
        ]
    )
    return rollout_order, step


@app.cell
def _(rollout_order, session, step, training):
    rollouts = session.rows(
        "rollouts_listed",
        checkpoint=training.value["checkpoint_id"],
        step=step.value,
        order=rollout_order.value,
        limit=lists.MOST_ROWS,
    )
    rollout_table = mo.ui.table(
        lists.shown_rows(rollouts),
        selection="single",
        initial_selection=[0] if rollouts else None,
        page_size=8,
    )
    rollout_table
    return rollout_table, rollouts


@app.cell
def _(rollout_table, rollouts, session, shown, training, view):
    mo.stop(view.value != "Rollouts" or not training.value or not rollout_table.value)
    mo.Html(
        reader.page_of_rollout(
            session, rollouts[rollout_table.value[0]["#"] - 1]["rollout_id"], shown=shown.value
        )
    )
    return


@app.cell
def _(view):
    mo.stop(view.value != "SQL")
    question = mo.ui.dropdown(
        {f"{name}: {query_doc(name)}": name for name in query_names()},
        label="start from a question",
        searchable=True,
        full_width=True,
    )
    question
    return (question,)


@app.cell
def _(question):
    sql_text = mo.ui.code_editor(
        value=query_text(question.value) if question.value else lists.FIRST_QUERY,
        language="sql",
        min_height=140,
    )
    run_sql = mo.ui.run_button(label="Run")
    mo.vstack(
        [
            sql_text,
            mo.hstack(
                [run_sql, mo.md(f"At most {lists.MOST_ROWS} rows; the filters do not apply.")],
                justify="start",
                align="center",
            ),
        ]
    )
    return run_sql, sql_text


@app.cell
def _(run_sql, session, shown, sql_text, view):
    mo.stop(view.value != "SQL" or not run_sql.value)
    _rows, _trouble = lists.answered(session, sql_text.value, whole=shown.value)
    panels.trouble(_trouble) if _trouble else mo.ui.table(_rows, selection=None)
    return


if __name__ == "__main__":
    app.run()
