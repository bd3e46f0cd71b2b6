"use strict";
{
  // A blind test of hearing: X is A or B, drawn anew for each trial. No attribute, text or global name tells which.
  const test = document.getElementById("blind");
  const [clip, result, score, chance] = ["clip", "result", "score", "chance"].map(id => document.getElementById(id));
  const players = [...test.querySelectorAll("[data-play]")];
  const forms = ["A, the original", "B, the protected clip"];
  let sounds, x, heard, right, votes, playing;

  const draw = () => {
    x = crypto.getRandomValues(new Uint8Array(1))[0] & 1;
    heard = false;
  };

  const stop = () => {
    document.querySelectorAll("audio").forEach(one => one.pause());
    playing?.pause();
    players.forEach(button => button.setAttribute("aria-pressed", "false"));
  };

  const play = button => {
    stop();
    const which = button.dataset.play;
    heard ||= which === "X";
    const sound = new Audio(sounds[which === "X" ? x : Number(which === "B")]);
    sound.onended = () => button.setAttribute("aria-pressed", "false");
    sound.play().catch(error => {
      if (error.name !== "AbortError") result.textContent = "This browser cannot play the clip."; // or it was stopped
    });
    button.setAttribute("aria-pressed", "true");
    playing = sound;
  };

  // The chance that guessing gets as many right, or more: exact, and rounded to four digits.
  const byGuessing = () => {
    let term = 1n, tail = 0n;
    for (let k = 0; k <= votes; k++) {
      if (k >= right) tail += term;
      term = term * BigInt(votes - k) / BigInt(k + 1);
    }
    const p = Number((tail * 20000n + 2n ** BigInt(votes)) / 2n ** BigInt(votes + 1)) / 10000;
    return p ? `p = ${p.toFixed(4)}` : "p < 0.0001";
  };

  const count = () => {
    score.textContent = `${right} of ${votes} right`;
    chance.textContent = votes ? byGuessing() : "no p-value yet";
  };

  const vote = button => {
    if (!heard) {
      result.textContent = `Trial ${votes + 1}: play X first.`;
      return;
    }
    stop();
    const good = Number(button.dataset.vote === "B") === x;
    right += good;
    votes += 1;
    result.textContent = `${good ? "Right" : "Wrong"}: X was ${forms[x]}. Trial ${votes + 1}: X is drawn anew.`;
    draw();
    count();
  };

  const begin = () => {
    stop();
    sounds = [...document.querySelectorAll(".clip")[clip.selectedIndex].querySelectorAll("audio")].map(one => one.src);
    right = votes = 0;
    draw();
    count();
    result.textContent = "Trial 1: play A, B and X, as often as you like.";
  };

  players.forEach(button => button.addEventListener("click", () => play(button)));
  test.querySelectorAll("[data-vote]").forEach(button => button.addEventListener("click", () => vote(button)));
  document.getElementById("again").addEventListener("click", begin);
  clip.addEventListener("change", begin);
  test.addEventListener("keydown", event => {
    if (event.target === clip || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    test.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key.toUpperCase())}"]`)?.click();
  });
  begin();
}
