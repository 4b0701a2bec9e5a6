// One room as the SDK sees it: what is said, who is there, and what was missed.

export class Room {
  number;
  #subscription;
  #on;
  #epoch = null;
  #offset = 0;
  #catchUp = null; // {recovered, missing} so far, while a reply's missed messages are handed over
  #asking = false;
  #stale = false;

  /**
   * @param client the SDK's
   * @param on {state(name, details), said(message), caughtUp(counts), notCaughtUp(counts),
   *   present(clients), join(info), leave(info), error(error)}
   */
  constructor(client, number, on) {
    this.number = number;
    this.#on = on;
    const subscription = client.newSubscription(`chat:${number}`, { joinLeave: true });
    this.#subscription = subscription;
    subscription.on("subscribing", (context) => on.state("subscribing", context));
    subscription.on("subscribed", (context) => this.#subscribed(context));
    subscription.on("unsubscribed", (context) => {
      client.removeSubscription(subscription);
      on.state("unsubscribed", context);
    });
    subscription.on("publication", (publication) => this.#said(publication));
    subscription.on("join", ({ info }) => this.#changed(() => on.join(info)));
    subscription.on("leave", ({ info }) => this.#changed(() => on.leave(info)));
    subscription.on("error", ({ error }) => on.error(error));
  }

  join() {
    this.#subscription.subscribe();
  }

  /** @throws {{code: number, message: string}} what the server, or else the SDK, has against it */
  async say(text) {
    await this.#subscription.publish({ text });
  }

  leave() {
    this.#subscription.unsubscribe();
  }

  #subscribed(context) {
    const { offset, epoch } = context.streamPosition ?? { offset: 0, epoch: "" };
    this.#on.state("subscribed", context);
    if (context.recovered) {
      // The SDK hands over what was missed right after this event, before anything else runs.
      const catchUp = { recovered: 0, missing: 0 };
      this.#catchUp = catchUp;
      queueMicrotask(() => {
        this.#catchUp = null;
        this.#on.caughtUp(catchUp);
      });
    } else if (context.wasRecovering) {
      // Offsets of another epoch cannot be compared.
      const missing = epoch === this.#epoch ? offset - this.#offset : null;
      this.#on.notCaughtUp({ missing });
    }
    this.#epoch = epoch;
    this.#offset = offset;
    this.#askWhoIsHere();
  }

  #said({ data, info, offset }) {
    if (this.#catchUp) {
      this.#catchUp.recovered += 1;
      this.#catchUp.missing += offset - this.#offset - 1;
    }
    this.#offset = offset;
    this.#on.said({ text: data.text, info, recovered: this.#catchUp !== null });
  }

  /** Somebody came or went. An answer on its way may not know it yet: ask again after it. */
  #changed(tell) {
    this.#stale = this.#asking;
    tell();
  }

  async #askWhoIsHere() {
    if (this.#asking) {
      this.#stale = true;
      return;
    }
    this.#asking = true;
    try {
      do {
        this.#stale = false;
        const { clients } = await this.#subscription.presence();
        this.#on.present(clients);
      } while (this.#stale);
    } catch (error) {
      // A line that was cut meanwhile: coming back asks again.
      if (error.code >= 100) this.#on.error(error);
    } finally {
      this.#asking = false;
    }
  }
}
