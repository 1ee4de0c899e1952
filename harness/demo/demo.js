"use strict";
// The local page: asks the server, shows answers while they grow, and puts in the finished card that the server made.

const form = document.querySelector("form.ask");
const own = document.getElementById("own");
const told = document.getElementById("told");
const buttons = () => document.querySelectorAll("button");

/** Put a question and hand each event of the answer's stream to `onEvent`. */
async function ask(body, onEvent) {
  const response = await fetch("/ask", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (!response.ok) {
    throw new Error(await response.text());
  }
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) {
      return;
    }
    waiting += value;
    const events = waiting.split("\n\n");
    waiting = events.pop();
    for (const event of events) {
      onEvent(JSON.parse(event.replace(/^data: /, "")));
    }
  }
}

/** What was answered before goes when the first words of the new answers come. */
function beginIn(card) {
  card.querySelectorAll(".answer").forEach((section) => section.remove());
  const badge = card.querySelector(".badge");
  badge.textContent = "live, being written";
  badge.classList.remove("stored");
}

/** The paragraph that an answer grows in. */
function growIn(card, version, heading) {
  const answers = card.querySelector(".answers");
  let section = answers.querySelector(`[data-version="${version}"]`);
  if (!section) {
    section = document.createElement("section");
    section.className = "answer growing";
    section.dataset.version = version;
    const title = document.createElement("h4");
    title.textContent = heading;
    const text = document.createElement("p");
    text.className = "text";
    text.dir = "auto";
    section.append(title, text);
    answers.append(section);
  }
  return section.querySelector(".text");
}

/** Put one card in another's place; the focus goes with it where it was lost, and a reader who hears the page is told. */
function replaceCard(card, next, words) {
  card.replaceWith(next);
  next.tabIndex = -1;
  if (document.activeElement === document.body) {
    next.focus({ preventScroll: true });
  }
  told.textContent = `${words}: ${next.querySelector("h3").textContent}`;
}

function makeCard(html) {
  const template = document.createElement("template");
  template.innerHTML = html; // escaped by the server's template
  return template.content.firstElementChild;
}

async function run(card, body, onFailure) {
  buttons().forEach((button) => (button.disabled = true));
  told.textContent = "The model is asked.";
  let begun = false;
  let finished = false;
  try {
    await ask(body, (event) => {
      if (event.kind === "said") {
        if (!begun) {
          begun = true;
          beginIn(card);
        }
        growIn(card, event.version, event.heading).textContent = event.text;
      } else if (event.kind === "item") {
        finished = true;
        replaceCard(card, makeCard(event.html), "Answered");
      } else {
        finished = true;
        onFailure(event.failure, event.html);
      }
    });
    if (!finished) {
      onFailure("the server ended the answer", "");
    }
  } catch (error) {
    onFailure(error.message, "");
  } finally {
    buttons().forEach((button) => (button.disabled = false));
  }
}

document.getElementById("questions").addEventListener("click", (event) => {
  if (!event.target.matches("button.again")) {
    return;
  }
  const card = event.target.closest("article");
  const before = card.cloneNode(true);
  before.querySelectorAll("button").forEach((button) => (button.disabled = false));
  run(card, { song: card.dataset.song, task: card.dataset.task }, (failure, html) => {
    const kept = html ? makeCard(html) : before;
    replaceCard(card, kept, "Not answered");
    if (!html) {
      const told = document.createElement("p");
      told.className = "failed";
      told.setAttribute("role", "alert");
      told.textContent = `Generation failed: ${failure}.`;
      kept.querySelector(".asked").prepend(told);
    }
  });
});

if (form) {
  const status = form.querySelector(".status");
  const choice = form.elements.task;
  const question = form.elements.question;
  choice.addEventListener("change", () => {
    question.disabled = choice.value !== "";
    question.required = choice.value === "";
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    status.textContent = "";
    const body = { lyrics: form.elements.lyrics.value };
    if (choice.value === "") {
      body.question = question.value;
    } else {
      body.task = choice.value;
    }
    const card = makeCard(
      '<article class="card"><p class="origin"><span class="badge">asked</span></p><div class="answers"></div></article>',
    );
    own.prepend(card);
    run(card, body, (failure) => {
      card.remove();
      status.textContent = `Failed: ${failure}`;
    });
  });
}
