// Shows a second model, image or training step beside the first. To be written.
export class Compare {
  constructor(page) {
    this.page = page;
  }

  async update() {}
}
